// Switches, buttons and keys.
import { CAMERAS, look } from "./camera.js";
import { clock, paint, play, seek, views } from "./clock.js";
import { hidden, layers } from "./layers.js";
import { $, CLASSES, FREE, css, rgbs } from "./scenery.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4];

function switchOf(parent, text, colour, on, change) {
  const label = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
  box.type = "checkbox";
  box.checked = on;
  swatch.className = "swatch";
  if (colour) swatch.style.background = css(colour);
  label.append(box, ...(colour ? [swatch] : []), text);
  label.classList.toggle("off", !on);
  box.addEventListener("change", () => { label.classList.toggle("off", !box.checked); change(box.checked); paint(); });
  parent.append(label);
  return box;
}

const settings = $("classes");
CLASSES.forEach((name, label) => {
  if (label === FREE) return;
  switchOf(settings, name.replaceAll("_", " "), rgbs[label], true, (on) => {
    if (on) hidden.delete(label); else hidden.add(label);
    views.forEach((view) => view.clear());
  }).dataset.label = label;
});
for (const [name, layer] of Object.entries(layers))
  switchOf($("layers"), layer.text, layer.colour, layer.on, (on) => { layer.on = on; }).dataset.layer = name;
for (const name of CAMERAS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => look(name));
  $("cameras").append(button);
}
for (const value of SPEEDS) $("speed").append(new Option(`${value}×`, value, value === 1, value === 1));
$("speed").addEventListener("change", () => { clock.speed = Number($("speed").value); });
$("play").addEventListener("click", () => play(!clock.playing));
$("scrub").addEventListener("input", () => { play(false); seek(Number($("scrub").value)); });
addEventListener("resize", paint);

function command(event) {
  if (event.target.matches?.("select, input:not([type=range], [type=checkbox])") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ",": -1, ".": 1, ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key >= "1" && event.key <= "3") look(CAMERAS[Number(event.key) - 1]);
  else if (clock.driver) return;
  else if (event.key === " ") { event.preventDefault(); play(!clock.playing); }
  else if (step) { event.preventDefault(); play(false); seek((Math.round(clock.time / 0.5) + step) * 0.5); }
}
addEventListener("keydown", command);
