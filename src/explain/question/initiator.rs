//! The part of a page that makes a request. It determines the request mode, and the parts that the page can set.

use http::StatusCode;

use crate::codes::coded_enum;

coded_enum! {
    /// The part of a page that makes a request. The code is the word for it on the command line.
    pub enum Initiator {
        /// `fetch()`, or `XMLHttpRequest` without upload listeners.
        Fetch = "fetch",
        /// `XMLHttpRequest` with a listener for the progress of an upload.
        XhrUpload = "xhr-upload",
        /// `fetch()` with `mode: 'no-cors'`, and elements without `crossorigin`.
        NoCors = "no-cors",
        /// `<img crossorigin>`; with credentials `crossorigin="use-credentials"`.
        Image = "image",
        /// `<script type="module">`, and its imports.
        Module = "module",
        /// A font of `@font-face`.
        Font = "font",
        /// `EventSource`; with credentials `withCredentials: true`.
        EventSource = "eventsource",
        /// A `WebSocket` connection.
        WebSocket = "websocket",
        /// A link, a form, or the address bar.
        Navigation = "navigation",
    }
}

/// The "request mode" of Fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::explain) enum Mode {
    Cors,
    NoCors,
    WebSocket,
    Navigate,
}

impl Initiator {
    pub(in crate::explain) fn mode(self) -> Mode {
        match self {
            Initiator::Fetch
            | Initiator::XhrUpload
            | Initiator::Image
            | Initiator::Module
            | Initiator::Font
            | Initiator::EventSource => Mode::Cors,
            Initiator::NoCors => Mode::NoCors,
            Initiator::WebSocket => Mode::WebSocket,
            Initiator::Navigation => Mode::Navigate,
        }
    }

    /// Returns the initiator of a recorded request, from its `Sec-Fetch-Mode` (Fetch Metadata section 2.2).
    pub(crate) fn of_mode(mode: Option<&str>) -> Self {
        match mode {
            Some("navigate") => Initiator::Navigation,
            Some("websocket") => Initiator::WebSocket,
            Some("no-cors") => Initiator::NoCors,
            _ => Initiator::Fetch,
        }
    }

    /// Returns one line for the help of the command line.
    pub fn description(self) -> &'static str {
        match self {
            Initiator::Fetch => "`fetch()`, or XMLHttpRequest without upload listeners",
            Initiator::XhrUpload => {
                "XMLHttpRequest with upload listeners: every request to another origin has a preflight"
            }
            Initiator::NoCors => "`fetch()` with `mode: 'no-cors'`, or an element without `crossorigin`",
            Initiator::Image => "`<img crossorigin>`",
            Initiator::Module => "`<script type=module>`",
            Initiator::Font => "`@font-face`",
            Initiator::EventSource => "`EventSource`",
            Initiator::WebSocket => "`WebSocket`: no CORS, but the Origin is always sent",
            Initiator::Navigation => "a link or a form: no CORS",
        }
    }

    /// Returns the phrase that follows a request: `GET https://api.example/a with <img crossorigin>`. It is empty for
    /// the default.
    pub(in crate::explain) fn phrase(self) -> &'static str {
        match self {
            Initiator::Fetch => "",
            Initiator::XhrUpload => " with upload listeners",
            Initiator::NoCors => " with `mode: no-cors`",
            Initiator::Image => " with `<img crossorigin>`",
            Initiator::Module => " with `<script type=module>`",
            Initiator::Font => " with `@font-face`",
            Initiator::EventSource => " with `EventSource`",
            Initiator::WebSocket => " with `WebSocket`",
            Initiator::Navigation => " by a navigation",
        }
    }

    /// Returns the name of the initiator in the messages of the browser's console.
    pub(in crate::explain) fn in_console(self) -> &'static str {
        match self {
            Initiator::Fetch => "fetch",
            Initiator::XhrUpload => "XMLHttpRequest",
            Initiator::Image => "image",
            Initiator::Module => "script",
            Initiator::Font => "font",
            Initiator::NoCors | Initiator::EventSource => "resource",
            Initiator::WebSocket => "WebSocket",
            Initiator::Navigation => "page",
        }
    }

    /// Returns the methods that the page can choose. Empty if it can choose any method that `fetch()` accepts.
    pub(super) fn methods(self) -> &'static [&'static str] {
        match self {
            Initiator::Fetch | Initiator::XhrUpload => &[],
            // Fetch, "new Request", step 31.1: `no-cors` requires a CORS-safelisted method.
            Initiator::NoCors => &["GET", "HEAD", "POST"],
            Initiator::Navigation => &["GET", "POST"],
            Initiator::Image | Initiator::Module | Initiator::Font | Initiator::EventSource | Initiator::WebSocket => {
                &["GET"]
            }
        }
    }

    /// Returns the upstream's status for a successful request.
    pub(super) fn usual_status(self) -> StatusCode {
        match self {
            Initiator::WebSocket => StatusCode::SWITCHING_PROTOCOLS,
            _ => StatusCode::OK,
        }
    }

    /// Returns true if the page can read headers of the response.
    pub(super) fn reads_headers(self) -> bool {
        matches!(self, Initiator::Fetch | Initiator::XhrUpload)
    }
}
