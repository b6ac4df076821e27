// Draws the pictures, as fine as the machine can.
import { aim } from "./camera.js";
import { advance, clock, views } from "./clock.js";
import { placeLabels } from "./labels.js";
import { layers } from "./layers.js";
import { $, THREE } from "./scenery.js";
import { paced, sharpness } from "./sharpness.js";

const canvas = $("scene");
THREE.ColorManagement.enabled = false;  // colours are the palette's, as they are
// Opaque: the browser needs to mix nothing with what lies behind it.
const context = canvas.getContext("webgl2", { alpha: false, antialias: false, stencil: false });
export const renderer = new THREE.WebGLRenderer({ canvas, context });
renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
renderer.autoClear = false;
renderer.setClearColor(0xdee6ec);  // the page's, between two views
// The nearest first: what lies behind is then not shaded at all.
renderer.setOpaqueSort((a, b) => a.renderOrder - b.renderOrder || (a.object.userData.far ?? 0) - (b.object.userData.far ?? 0));

let last = 0;
export function tick(now) {
  requestAnimationFrame(tick);
  advance(Math.min(now - last, 250) / 1000);
  last = now;
  if (!clock.stale || !views.length) return;
  clock.stale = false;
  draw();
  const rate = clock.playing && paced(now);
  if (rate) $("rate").textContent = `${rate.toFixed(0)} pictures/s`;
}

function draw() {
  const { ratio } = sharpness, width = canvas.clientWidth, height = canvas.clientHeight;
  if (renderer.getPixelRatio() !== ratio) renderer.setPixelRatio(ratio);  // here: it clears the picture
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    renderer.setSize(width, height, false);
    canvas.style.width = canvas.style.height = "";
  }
  renderer.setScissorTest(false);
  renderer.clear();
  renderer.setScissorTest(true);
  for (const view of views) {
    const left = view.pane.offsetLeft, wide = view.pane.offsetWidth;
    view.show(clock.time);
    aim(view);
    view.camera.aspect = wide / height;
    view.camera.updateProjectionMatrix();
    view.camera.updateMatrixWorld();
    renderer.setViewport(left, 0, wide, height);
    renderer.setScissor(left, 0, wide, height);
    renderer.render(view.scene, view.camera);
    placeLabels(view, wide, height);
    view.part("figure i").style.left = `${view.cursor(view.shown)}px`;
    view.part("figure").style.display = layers.chart.on ? "" : "none";
  }
  $("time").textContent = `${clock.time.toFixed(1)} / ${clock.seconds.toFixed(1)} s`;
  if (document.activeElement !== $("scrub") || clock.playing) $("scrub").value = clock.time;
  const behind = views.find((view) => view.k + 1 < view.recording.frames.length && !view.meshes.has(view.k + 1));
  if (clock.playing && behind) behind.built(behind.k + 1);  // ahead of when it is needed, one a picture
}
