// Requests to the gateway: the native API, of the same origin, with the page's cookie.

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `the gateway answered ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.hint = body.hint ?? "";
  }
}

// What a reader has given cannot be used; said in words.
export class InputError extends Error {}

// Integers above 2^53, of which numbers lose digits: a seed is a text here, and a BigInt is sent.
const BIG = "\u0000";
const parsed = (text) => JSON.parse(text.replaceAll(/"seed":(\d{16,})/g, '"seed":"$1"'));
const written = (body) => JSON.stringify(body, (_, value) => (typeof value === "bigint" ? `${BIG}${value}` : value))
  .replaceAll(/"\\u0000(\d+)"/g, "$1");

async function answer(response) {
  if (response.ok) return response.status === 204 ? null : parsed(await response.text());
  let body = {};
  try { body = await response.json(); } catch { /* a proxy's page */ }
  throw new Problem(response.status, body);
}

const address = (path, query) => {
  const wanted = Object.entries(query ?? {}).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(wanted.flatMap(([key, value]) => [value].flat().map((each) => [key, each]))).toString();
  return `/api/v1${path}${text ? `?${text}` : ""}`;
};

export async function get(path, query) {
  return answer(await fetch(address(path, query), { headers: { Accept: "application/json" } }));
}

// `path`: from the root of the gateway, as those of sessions are.
export async function request(method, path, body) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  return answer(await fetch(path, { method, headers, body: body === undefined ? undefined : written(body) }));
}

export const send = (method, path, body) => request(method, address(path), body);

const RETRY_MS = 5000; // after a refused stream

// Server-sent events while the page is visible; a hidden page costs nothing. Returns a function that
// ends them.
export function follow(path, query, kinds, onState) {
  let source = null, ended = false;
  const open = () => {
    if (source || ended || document.hidden) return;
    source = new EventSource(address(path, query));
    source.onopen = () => onState("live");
    source.onerror = () => {
      if (source?.readyState !== EventSource.CLOSED) return onState("reconnecting");
      close(); // it was refused
      setTimeout(open, RETRY_MS);
      return onState("closed");
    };
    for (const [kind, handle] of Object.entries(kinds)) {
      source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
    }
  };
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  open();
  return () => { ended = true; close(); };
}
