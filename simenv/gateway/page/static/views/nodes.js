// Nodes of the allocation, and the workers on them.

import { get, send } from "../api.js";
import { bytes, card, count, gauge, h, mark, table, taskLink } from "../dom.js";
import { live, refresh, render, report } from "../shell.js";

let info = null, workers = [], role = "";

async function change(node, verb, body) {
  try { await send("POST", `/nodes/${encodeURIComponent(node)}/${verb}`, body); report(null); } catch (error) { report(error); }
}

const drain = (node) => h("details", null, h("summary", null, "Drain"),
  h("form", { onsubmit: (event) => { event.preventDefault(); change(node, "drain", { reason: event.target.elements.reason.value }); } },
    h("label", null, `Reason, for other administrators`, h("input", { name: "reason", required: true, maxlength: 200 })), h("button", null, `Drain ${node}`)));

function draw() {
  if (!info) return;
  render(
    card("Nodes", table("Nodes", [
      { name: "Node", of: (node) => h("strong", null, node.name), by: (node) => node.name },
      { name: "State", of: (node) => [mark(node.state), node.reason ? ` ${node.reason}` : ""], by: (node) => node.state },
      { name: "Slots in use", of: (node) => [`${node.slots_granted} of ${node.slots}`, gauge(node.slots_granted, node.slots)], by: (node) => node.slots_granted, line: "named" },
      { name: "Memory granted", of: (node) => [`${bytes(node.memory_granted)} of ${bytes(node.memory_bytes)}`, gauge(node.memory_granted, node.memory_bytes)], by: (node) => node.memory_granted, line: "named" },
      { name: "Workers", of: (node) => node.workers, by: (node) => node.workers, number: true },
      { name: "GPUs", of: (node) => node.gpus, number: true, wide: true },
      { name: "Features", of: (node) => node.features.join(" "), wide: true },
      ...(role === "admin" ? [{ name: "Action", of: (node) => (node.state === "up" ? drain(node.name) : h("button", { onclick: () => change(node.name, "undrain") }, `Use ${node.name} again`)) }] : []),
    ], info.nodes, { key: (node) => node.name, redraw: draw })),
    card("Workers", table("Workers", [
      { name: "Worker", of: (worker) => worker.name, by: (worker) => worker.name },
      { name: "Pool", of: (worker) => worker.pool, by: (worker) => worker.pool },
      { name: "State", of: (worker) => mark(worker.state), by: (worker) => worker.state },
      { name: "Task", of: (worker) => (worker.task ? taskLink(worker.task) : "–"), line: "named" },
      { name: "Node", of: (worker) => (worker.nodes.length > 1 ? worker.nodes.join(", ") : worker.node), by: (worker) => worker.node },
      { name: "Ranks", of: (worker) => worker.ranks, number: true, wide: true },
      { name: "Slots", of: (worker) => worker.slots, number: true, wide: true },
      { name: "Memory", of: (worker) => bytes(worker.memory_bytes), by: (worker) => worker.memory_bytes, number: true },
      { name: "Tasks", of: (worker) => count(worker.tasks), by: (worker) => worker.tasks, number: true },
      { name: "Restarts", of: (worker) => worker.restarts, by: (worker) => worker.restarts, number: true },
    ], workers, { key: (worker) => worker.name, empty: "No worker runs.", redraw: draw })),
    card("Service", h("p", null, `simenv ${info.version} on ${info.node}; ${info.launcher || "local workers"}; ${info.allocation}.`),
      h("p", { class: "muted" }, `${bytes(info.rss_bytes)} of memory, event loop 99th percentile ${info.loop_lag_p99_ms.toFixed(1)} ms.`)),
  );
}

live((data) => { [info, role] = [data.info, data.role]; draw(); });
refresh(async () => { workers = await get("/workers"); draw(); }, 2);
