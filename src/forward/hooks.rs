//! The hooks that Pingora calls. Each hook calls one method of [`Gateway`].
//!
//! Most hooks wait for nothing. With `async_trait`, each call of such a hook would allocate a future, about ten for
//! each forwarded request. These hooks do their work during the call, and return a future without data ([`done`]).

use std::future::{poll_fn, ready};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::{Ctx, Gateway, Next, early_response};

/// The future of a hook.
type Hook<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// Declares a hook with the signature that `async_trait` would make. The body of the hook makes the future.
macro_rules! hook {
    (fn $name:ident<$($lifetime:lifetime),*>($this:ident, $($arg:tt: $type:ty),*) -> $output:ty $body:block) => {
        fn $name<'a, $($lifetime,)* 'f>(&'a $this, $($arg: $type),*) -> Hook<'f, $output>
        where
            'a: 'f,
            $($lifetime: 'f,)*
            Self: 'f,
        $body
    };
}

/// Returns the future of a finished hook. It has no data, so its box needs no memory.
fn done<'f>(result: Result<()>) -> Hook<'f, Result<()>> {
    match result {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(())))),
        Err(error) => Box::pin(ready(Err(error))),
    }
}

/// Returns the same future for a hook with a result of true or false.
fn answered<'f>(result: Result<bool>) -> Hook<'f, Result<bool>> {
    match result {
        Ok(true) => Box::pin(poll_fn(|_| Poll::Ready(Ok(true)))),
        Ok(false) => Box::pin(poll_fn(|_| Poll::Ready(Ok(false)))),
        Err(error) => Box::pin(ready(Err(error))),
    }
}

impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        self.new_request()
    }

    /// Adds no module. The default of Pingora adds a disabled compression module, which allocates memory for each
    /// request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    hook! { fn early_request_filter<'b, 'c>(self, _: &'b mut Session, _: &'c mut Ctx) -> Result<()> {
        done(Ok(()))
    } }

    hook! { fn request_filter<'b, 'c>(self, session: &'b mut Session, ctx: &'c mut Ctx) -> Result<bool> {
        match self.on_request(session, ctx) {
            Ok(Next::Forward) => answered(Ok(false)),
            Ok(Next::Reply(reply)) => Box::pin(async { reply.send(session).await.map(|()| true) }),
            Ok(Next::Ask(reply)) => Box::pin(async {
                match self.ask(session, ctx, reply).await? {
                    None => Ok(false),
                    Some(reply) => reply.send(session).await.map(|()| true),
                }
            }),
            Err(error) => answered(Err(error)),
        }
    } }

    hook! { fn proxy_upstream_filter<'b, 'c>(self, _: &'b mut Session, _: &'c mut Ctx) -> Result<bool> {
        answered(Ok(true))
    } }

    hook! { fn upstream_peer<'b, 'c>(self, session: &'b mut Session, ctx: &'c mut Ctx) -> Result<Box<HttpPeer>> {
        match ctx.next_peer(session).transpose() {
            Some(peer) => Box::pin(ready(peer)),
            None => Box::pin(ctx.wait_for_peer(session)),
        }
    } }

    hook! { fn connected_to_upstream<'b, 'c, 'd, 'e>(
        self, _: &'b mut Session, reused: bool, _: &'c HttpPeer, _: RawFd, _: Option<&'d Digest>, ctx: &'e mut Ctx
    ) -> Result<()> {
        self.on_connected(reused, ctx);
        done(Ok(()))
    } }

    fn fail_to_connect(&self, session: &mut Session, _peer: &HttpPeer, ctx: &mut Ctx, mut e: Box<Error>) -> Box<Error> {
        ctx.on_connect_error(session, &mut e);
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        ctx.on_error(session, &mut e, client_reused);
        e
    }

    hook! { fn upstream_request_filter<'b, 'c, 'd>(
        self, session: &'b mut Session, upstream_request: &'c mut RequestHeader, ctx: &'d mut Ctx
    ) -> Result<()> {
        done(ctx.on_upstream_request(session, upstream_request))
    } }

    hook! { fn request_body_filter<'b, 'c, 'd>(
        self, session: &'b mut Session, body: &'c mut Option<Bytes>, end_of_stream: bool, ctx: &'d mut Ctx
    ) -> Result<()> {
        done(ctx.on_request_body(session, body, end_of_stream))
    } }

    hook! { fn upstream_response_filter<'b, 'c, 'd>(
        self, _: &'b mut Session, response: &'c mut ResponseHeader, ctx: &'d mut Ctx
    ) -> Result<()> {
        ctx.on_upstream_response(response);
        done(Ok(()))
    } }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        ctx.on_upstream_response_body(body.as_mut());
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        _trailers: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.on_upstream_trailers()
    }

    hook! { fn response_filter<'b, 'c, 'd>(
        self, session: &'b mut Session, response: &'c mut ResponseHeader, ctx: &'d mut Ctx
    ) -> Result<()> {
        done(ctx.on_response(session, response))
    } }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        ctx.on_response_body(body, end_of_stream)?;
        Ok(None)
    }

    // Pingora sends the returned bytes in place of the trailers. It ignores an error of this hook.
    hook! { fn response_trailer_filter<'b, 'c, 'd>(
        self, _: &'b mut Session, _: &'c mut HeaderMap, ctx: &'d mut Ctx
    ) -> Result<Option<Bytes>> {
        match ctx.instead_of_trailers() {
            None => Box::pin(poll_fn(|_| Poll::Ready(Ok(None)))),
            some => Box::pin(ready(Ok(some))),
        }
    } }

    hook! { fn fail_to_proxy<'b, 'c, 'd>(self, session: &'b mut Session, e: &'c Error, ctx: &'d mut Ctx) -> FailToProxy {
        Box::pin(ctx.reply_to_failure(session, e))
    } }

    hook! { fn logging<'b, 'c, 'd>(self, session: &'b mut Session, e: Option<&'c Error>, ctx: &'d mut Ctx) -> () {
        ctx.record_session(session, e);
        let http2 = ctx.forwarded().is_some_and(|(_, upstream)| upstream.settings().http2);
        // The response is complete if there is no error.
        match http2 && e.is_none() {
            true => Box::pin(early_response::finish_connection(session)),
            false => Box::pin(poll_fn(|_| Poll::Ready(()))),
        }
    } }

    /// Disables Pingora's log line. The line contains data from the client, and a client can cause any number of lines.
    /// The access log has a bound for both.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
