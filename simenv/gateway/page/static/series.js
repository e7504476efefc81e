// Stored series of the environment.

import { get } from "./api.js";

let known = [];

// Returns {times, values: {name: array}}, all series on the same times; what nothing was stored of is
// null. With `regular`, series are sampled at equal steps: a longer time without samples, in which no
// service ran, is a gap.
export async function history(names, from, to, { regular = false } = {}) {
  if (names.some((name) => !known.includes(name))) known = (await get("/series")).names;
  const found = await Promise.all(names.filter((name) => known.includes(name)).map((name) => get("/series", { name, since: from, until: to })));
  const stored = [...new Set(found.flatMap((each) => each.at_s))].sort((a, b) => a - b);
  const times = regular ? withGaps(stored) : stored;
  const values = Object.fromEntries(names.map((name) => [name, times.map(() => null)]));
  const place = new Map(times.map((time, index) => [time, index]));
  for (const each of found) each.at_s.forEach((time, index) => { values[each.name][place.get(time)] = each.mean[index]; });
  return { times, values };
}

// Times of samples, with one more in each gap: a sample that is late by a step is none.
function withGaps(times) {
  const step = times.reduce((least, time, index) => (index ? Math.min(least, time - times[index - 1]) : least), Infinity);
  return times.flatMap((time, index) => (index && time - times[index - 1] > 2.5 * step ? [times[index - 1] + step, time] : [time]));
}

// Begin of what a plot shows of a range that ends now: an environment that is younger fills the plot.
export async function begin(name, from, times) {
  const first = times[0] ?? Infinity, now = Date.now() / 1000;
  if (first === Infinity || first - from < 0.1 * (now - from)) return from;
  const before = await get("/series", { name, since: 0, until: from, step: now });
  return before.at_s.length ? from : first;
}
