// What is shown: layers that are on, and labels of classes that are switched off.
import { COLOURS } from "./scenery.js";

export const layers = {
  plan: { text: "planned trajectory", on: true, colour: COLOURS.PLAN },
  route: { text: "route", on: true, colour: COLOURS.ROUTE },
  boxes: { text: "boxes", on: true },
  labels: { text: "id, class, km/h", on: true },
  chart: { text: "score over time", on: true },
  edge: { text: "edge of first frame", on: true, colour: [138, 63, 209] },
};

export const hidden = new Set();
