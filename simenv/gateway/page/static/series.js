// Stored series of the environment.

import { get } from "./api.js";

// Returns {times, values: {name: array}}, all series on the same times: gaps are null.
export async function history(names, from, to) {
  const found = await Promise.all(names.map((name) => get("/series", { name, since_s: from, until_s: to })
    .catch((error) => { if (error.status === 404) return { at_s: [], mean: [] }; throw error; })));
  const times = [...new Set(found.flatMap((each) => each.at_s))].sort((a, b) => a - b);
  const values = Object.fromEntries(found.map((each, index) => {
    const at = new Map(each.at_s.map((time, place) => [time, each.mean[place]]));
    return [names[index], times.map((time) => at.get(time) ?? null)];
  }));
  return { times, values };
}
