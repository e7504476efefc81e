// Stored series of the environment.

import { get } from "./api.js";

let known = [];

// Returns {times, values: {name: array}}, all series on the same times: gaps, and series that
// nothing was stored of, are null.
export async function history(names, from, to) {
  if (names.some((name) => !known.includes(name))) known = (await get("/series")).names;
  const found = await Promise.all(names.filter((name) => known.includes(name)).map((name) => get("/series", { name, since: from, until: to })));
  const times = [...new Set(found.flatMap((each) => each.at_s))].sort((a, b) => a - b);
  const values = Object.fromEntries(names.map((name) => [name, times.map(() => null)]));
  const place = new Map(times.map((time, index) => [time, index]));
  for (const each of found) each.at_s.forEach((time, index) => { values[each.name][place.get(time)] = each.mean[index]; });
  return { times, values };
}
