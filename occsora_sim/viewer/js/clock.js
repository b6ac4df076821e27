// Time on the page, and the views that it holds for.
import { drawChart } from "./chart.js";
import { $ } from "./scenery.js";
import { sharpen, sharpness } from "./sharpness.js";

// [s]; `driver` is there while somebody drives, `stale` when the picture shows something else than it should.
export const clock = { time: 0, speed: 1, playing: false, seconds: 0, driver: null, stale: true };
export const views = [];

export function paint() { clock.stale = true; }

export function seek(time) {
  clock.time = Math.min(Math.max(time, 0), clock.seconds);
  paint();
}

export function play(on) {
  if (on && clock.time >= clock.seconds - 1e-6 && !clock.driver) clock.time = 0;
  clock.playing = on;
  sharpen(sharpness.finest);
  $("play").textContent = on ? "⏸" : "▶";
  paint();
}

// Lets `passed` [s] go by.
export function advance(passed) {
  if (!clock.playing || !views.length) return;
  const before = clock.time;
  clock.time = Math.min(clock.time + passed * clock.speed * (clock.driver?.pace() ?? 1), clock.seconds);
  if (clock.time >= clock.seconds && !clock.driver) play(false);
  clock.stale ||= clock.time !== before;
}

// The views have changed, or their recordings have grown.
export function measure() {
  clock.seconds = Math.max(0, ...views.map((view) => view.recording.seconds));
  $("scrub").max = clock.seconds;
  for (const view of views) drawChart(view, clock.seconds);
  paint();
}
