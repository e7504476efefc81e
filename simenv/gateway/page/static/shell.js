// What every page has: navigation, theme, the live connection, problems in words.

import { follow, get, Problem } from "./api.js";
import { h, show } from "./dom.js";

let streams = false; // whether the page has a stream, whose state is shown
const content = document.getElementById("content");
const link = document.getElementById("link");
const theme = document.getElementById("theme");

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

export function render(...nodes) { show(content, ...nodes); }
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
  if (error instanceof Problem && error.status === 401) {
    content.replaceChildren(h("section", { class: "card" }, h("h2", null, "Sign in"),
      h("p", null, "This page shows what your user may see. Type ", h("code", null, "simenv web"),
        " where you can reach the environment, and open the link that it prints: it signs this browser in.")));
    return link.replaceChildren("signed out");
  }
  if (!(error instanceof Problem) && !(error instanceof TypeError)) console.error(error);
  const text = error instanceof TypeError ? "the gateway does not answer" : error.message;
  place.replaceChildren(h("p", { class: "problem" }, text, error.hint ? h("span", null, `: ${error.hint}`) : null));
  content.querySelector(":scope > .loading")?.remove(); // there is nothing to wait for
}

// Runs `load` now and again every `every_s` seconds while the page is visible.
export async function refresh(load, every_s) {
  const once = async () => {
    try {
      await load();
      report(null);
      if (!streams) connection("live");
    } catch (error) {
      report(error);
      if (!streams) connection(error instanceof Problem && error.status < 500 ? "live" : "no answer");
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
  return follow("/live", {}, {
    live: (data) => { report(null); handle(data); },
    problem: (data) => report(new Problem(data.status, data)),
  }, (state) => {
    connection(state);
    if (state === "closed") get("/queue", { limit: 0 }).catch(report); // why
  });
}
