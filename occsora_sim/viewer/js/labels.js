// Words over the picture: how the ego fares, and who the road users near it are.
import { layers } from "./layers.js";
import { CLASSES, THREE, css, rgbs } from "./scenery.js";

export function writeFigures(view, share, next) {
  const { recording, frame } = view, { meta, frames } = recording;
  const speed = Math.hypot(next.pose[0] - frame.pose[0], next.pose[1] - frame.pose[1]) / meta.frame_seconds;
  view.speed = next === frame ? view.speed ?? 0 : speed;
  const parts = [`${(3.6 * view.speed).toFixed(0)} km/h`];
  if (frame.users.size) parts.push(`${frame.users.size} road users`);
  if (view.k === frames.length - 1 && meta.texts.ended) parts.push(`ended: ${meta.texts.ended}`);
  view.part(".figures").textContent = parts.join(" · ");
  if (view.scored === meta.score) return;
  view.scored = meta.score;
  view.part(".score").replaceChildren(...Object.entries(meta.score).filter(([name]) => !["progress", "seconds"].includes(name)).map(([name, value]) => {
    const term = document.createElement("span"), figure = document.createElement("b");
    figure.textContent = value.toFixed(2);
    term.append(name, figure);
    return term;
  }));
}

const ink = document.createElement("canvas").getContext("2d");
ink.font = "11px system-ui, sans-serif";  // of .labels in the style
const HEIGHT = 15;

function box({ offsetLeft, offsetTop, offsetWidth, offsetHeight }) {
  return [offsetLeft, offsetTop, offsetLeft + offsetWidth, offsetTop + offsetHeight];
}

// Id, class and speed beside the road users near the ego: the nearest first, and none over another or over the figures.
export function placeLabels(view, width, height) {
  const near = layers.labels.on ? view.users.map((user) => ({ user, far: Math.hypot(user.at[0] - view.ego[0], user.at[1] - view.ego[1]) }))
    .filter(({ far }) => far < 42).sort((a, b) => a.far - b.far).slice(0, 24) : [];
  const taken = near.length ? [box(view.part("header")), box(view.part("figure"))] : [];
  let used = 0;
  for (const { user } of near) {
    const point = new THREE.Vector3(user.at[0], user.at[1], view.ground + user.size[2] + 0.5).project(view.camera);
    if (point.z > 1 || Math.abs(point.x) > 0.98 || Math.abs(point.y) > 0.95) continue;
    const text = `${user.id} ${CLASSES[user.label].replaceAll("_", " ")} ${(3.6 * user.speed).toFixed(0)}`;
    const x = Math.round((point.x + 1) / 2 * width), y = Math.round((1 - point.y) / 2 * height) - HEIGHT - 1;
    const place = [x, y, x + Math.ceil(ink.measureText(text).width) + 11, y + HEIGHT];
    if (taken.some((other) => place[0] < other[2] && other[0] < place[2] && place[1] < other[3] && other[1] < place[3])) continue;
    taken.push(place);
    const tag = (view.tags[used] ??= view.part(".labels").appendChild(document.createElement("span")));
    used++;
    if (tag.textContent !== text) tag.textContent = text;
    tag.style.borderColor = css(rgbs[user.label]);
    tag.style.transform = `translate(${x}px, ${y}px)`;
    tag.style.display = "";
  }
  for (; used < view.tags.length; used++) view.tags[used].style.display = "none";
}
