// Begins: what the page holds, or what the server that it came from tells.
import { look, mode } from "./camera.js";
import { clock, measure, paint, play, seek, views } from "./clock.js";
import { Driver } from "./driver.js";
import { Editor } from "./editor.js";
import { layers } from "./layers.js";
import "./panel.js";
import { renderer, tick } from "./pictures.js";
import { Recording } from "./recording.js";
import { $, unpack } from "./scenery.js";
import { sharpen, sharpness } from "./sharpness.js";
import { View } from "./view.js";

async function begin() {
  if (document.body.dataset.mode === "play") {
    clock.driver = new Driver();
    $("notice").textContent = "The world is being made …";
    await new Promise((done) => { const look = () => views.length ? done() : setTimeout(look, 50); look(); });
  } else {
    const pieces = [];
    for (let k = 0; $(`rollout-${k}`); k++) pieces.push(await unpack($(`rollout-${k}`).textContent));
    views.push(...pieces.map((piece) => new View(new Recording(piece))));
    $("notice").textContent = "";
    measure();
  }
  look("chase");
  if (document.body.dataset.mode === "edit") viewer.editor = new Editor((await unpack($("edit").textContent)).meta);
  requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.ready = "yes"; }));
}

// For tests and the curious.
globalThis.viewer = { views, clock, renderer, layers, seek, play, look, paint, sharpen, sharpness, get mode() { return mode; } };
requestAnimationFrame(tick);
await begin();
