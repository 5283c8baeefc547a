// The functions of the pages. The result of a request is `t` if the page can read the response with its `X-Total`, `a` for
// another response, and `r` for an error or for a 403 of the gateway. `x` is a timeout.
const send = async (url, init) => {
  const response = await fetch(url, init);
  return response.status == 403 ? 'r' : response.headers.has('X-Total') ? 't' : 'a';
};
const upload = (url, method, include) => new Promise((done, fail) => {
  const request = new XMLHttpRequest();
  request.upload.onprogress = () => 0;
  request.open(method, url);
  request.withCredentials = include;
  request.onload = () => done(request.status == 403 ? 'r' : 'a');
  request.onerror = fail;
  request.send('body');
});
const load = (tag, url, include) => new Promise((done, fail) => {
  const element = document.createElement(tag);
  if (tag == 'script') element.type = 'module';
  element.crossOrigin = include ? 'use-credentials' : 'anonymous';
  element.onload = () => done('a');
  element.onerror = fail;
  element.src = url;
  document.head.append(element);
});
const font = async url => (await new FontFace('font', `url(${url})`).load(), 'a');
const events = (url, include) => new Promise((done, fail) => {
  const source = new EventSource(url, { withCredentials: include });
  source.onopen = () => { source.close(); done('a'); };
  source.onerror = error => { source.close(); fail(error); };
});
const socket = url => new Promise((done, fail) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.close(); done('a'); };
  socket.onerror = fail;
});
const run = async requests => {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < requests.length) {
      const i = next++;
      const late = new Promise(done => setTimeout(done, 20000, 'x'));
      results[i] = await Promise.race([requests[i]().catch(() => 'r'), late]);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return results.join('');
};
