// What every page has: navigation, theme, the live connection, problems in words.

import { follow, get, InputError, Problem, request } from "./api.js";
import { h, show } from "./dom.js";

let streams = false; // whether the page has a stream, whose state is shown
let endStream = null;
let signedOut = false; // the page asks for nothing until a user signs in
const content = document.getElementById("content");
const link = document.getElementById("link");
const theme = document.getElementById("theme");
const user = document.getElementById("user");

for (const anchor of document.querySelectorAll("nav a")) {
  if (anchor.dataset.view === (document.body.dataset.view === "task" ? "tasks" : document.body.dataset.view)) {
    anchor.setAttribute("aria-current", "page");
  }
}

theme.value = localStorage.getItem("theme") ?? "";
const paint = () => {
  document.documentElement.dataset.theme = theme.value;
  dispatchEvent(new Event("repaint"));
};
theme.onchange = () => { localStorage.setItem("theme", theme.value); paint(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
paint();

export function render(...nodes) { if (!signedOut) show(content, ...nodes); }
export function actions(...nodes) { show(document.getElementById("actions"), ...nodes); }
export function title(text, note) {
  document.querySelector("h1").replaceChildren(text, ...(note ? [h("small", null, note)] : []));
  document.title = `${text} · ${document.title.split(" · ").at(-1)}`;
}

// The last path segment after /ui/VIEW/, decoded; "" if there is none.
export const subject = () => decodeURIComponent(location.pathname.split("/")[3] ?? "");

export function report(error) {
  const place = document.getElementById("problem");
  if (!error) return place.replaceChildren();
  if (error instanceof Problem && error.status === 401) return signIn();
  if (!(error instanceof Problem) && !(error instanceof TypeError) && !(error instanceof InputError)) console.error(error);
  const text = error instanceof TypeError ? "the gateway does not answer" : error.message;
  place.replaceChildren(h("p", { class: "problem" }, text, error.hint ? h("span", null, `: ${error.hint}`) : null));
  content.querySelector(":scope > .loading")?.remove(); // there is nothing to wait for
}

// A form for a token, in place of the view. It is drawn once: what a user types stays.
function signIn() {
  if (signedOut) return;
  signedOut = true;
  sessionStorage.clear(); // circuits of this user: the next one may be another
  endStream?.();
  connection("signed out");
  actions();
  user.replaceChildren();
  const refused = h("p", { class: "muted", role: "status" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      await request("POST", "/login", { token: form.elements.token.value.trim() });
      location.reload();
    } catch (error) {
      refused.className = "problem";
      refused.replaceChildren(error.message);
    }
  } }, h("label", null, "Token", h("input", { name: "token", type: "password", required: true, autocomplete: "off", size: 44 })),
  h("button", { class: "primary" }, "Sign in"));
  content.replaceChildren(h("section", { class: "card" }, h("h2", null, "Sign in"),
    h("p", null, "This page shows what your user may see."), form, refused,
    h("p", { class: "muted" }, h("code", null, "simenv web"), ", with a key file ",
      h("code", null, "simenv --service FILE web"), ", prints a link that signs a browser in. A token is what an administrator gave you, or what ",
      h("code", null, "simenv gateway tokens add"), " prints.")));
}

async function signOut() {
  try { await request("POST", "/logout"); signIn(); } catch (error) { report(error); }
}

// Who is signed in, and a way out.
request("GET", "/session").then(({ user: name, role }) => show(user,
  h("span", null, name || "own user", role === "admin" ? " (admin)" : ""), h("button", { onclick: signOut }, "Sign out")), report);

// Runs `load` now and again every `every_s` seconds while the page is visible.
export async function refresh(load, every_s) {
  const once = async () => {
    if (signedOut) return;
    try {
      await load();
      report(null);
      if (!streams) connection("live");
    } catch (error) {
      report(error);
      if (!streams && !signedOut) connection(error instanceof Problem && error.status < 500 ? "live" : "no answer");
    }
  };
  await once();
  if (every_s) setInterval(() => { if (!document.hidden) once(); }, every_s * 1000);
}

function connection(state) {
  link.replaceChildren(state);
  link.dataset.state = state;
}

export function live(handle) {
  streams = true;
  endStream = follow("/live", {}, {
    live: (data) => { report(null); handle(data); },
    problem: (data) => report(new Problem(data.status, data)),
  }, (state) => {
    if (signedOut) return;
    connection(state);
    if (state === "closed") get("/queue", { limit: 0 }).catch(report); // why
  });
}
