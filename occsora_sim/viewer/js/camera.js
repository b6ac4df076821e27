// One camera for all views: where it stands, seen from the ego's place, along the axes of the world.
import { paint, views } from "./clock.js";
import { compose } from "./pose.js";
import { $, THREE } from "./scenery.js";
import { CLEARANCE } from "./surface.js";

export const CAMERAS = ["chase", "orbit", "top"];
export let mode = "chase";

const hand = new THREE.PerspectiveCamera(52, 1, 0.3, 900);
hand.up.set(0, 0, 1);
hand.position.set(-22, -22, 24);
const orbit = new THREE.OrbitControls(hand, $("scene"));
orbit.maxPolarAngle = 1.53;
orbit.minDistance = 4;
orbit.maxDistance = 160;
orbit.addEventListener("start", () => { if (mode !== "orbit") look("orbit"); });
orbit.addEventListener("change", () => paint());

const middle = (view) => 0.2 * view.border;  // [m] ahead of the ego: of the picture from above

export function look(name) {
  if (name === "orbit" && mode !== "orbit" && views.length) {  // begin where the other camera stands
    const view = views[0], from = view.camera.position, ahead = mode === "top" ? middle(view) : 0;
    const [c, s] = [Math.cos(view.ego[2]), Math.sin(view.ego[2])], back = ahead && 0.5;  // so that ahead stays up
    hand.position.set(from.x - view.ego[0] - back * c, from.y - view.ego[1] - back * s, from.z - view.ground);
    orbit.target.set(ahead * c, ahead * s, 1);
    orbit.update();
  }
  mode = name;
  for (const button of $("cameras").children) button.classList.toggle("on", button.textContent === name);
  paint();
}

export function aim(view) {
  const { camera, ego, ground } = view, at = (p) => [...compose(ego, p).slice(0, 2), ground + p[2]];
  const put = (eye, target, up, angle) => {
    camera.up.set(...up);
    camera.fov = angle;
    camera.position.set(...eye);
    camera.lookAt(...target);
  };
  if (mode === "chase") put(at([-9, 0, 5.4]), at([9, 0, 0.2]), [0, 0, 1], 52);
  else if (mode === "top") put(at([middle(view), 0, 1.95 * view.border]), at([middle(view), 0, 0]), [Math.cos(ego[2]), Math.sin(ego[2]), 0], 50);
  else put(hand.position.toArray().map((p, a) => p + [ego[0], ego[1], ground][a]),
    orbit.target.toArray().map((p, a) => p + [ego[0], ego[1], ground][a]), [0, 0, 1], 52);
  view.uniforms.eye.value.copy(camera.position);
  const { ego: seen, reach } = view.uniforms, built = view.built(view.k);
  for (const tile of built.still) {
    const { sphere: { center, radius }, corners } = tile.userData, wanted = tile.geometry.userData.tall ? ["BAND"] : [];
    if (view.edged) wanted.push("EDGE");
    if (crosses(tile, camera.position, seen.value, ground)) wanted.push("OPEN");
    if (corners.some(({ x, y }) => Math.hypot(x - seen.value.x, y - seen.value.y) > reach.value[0])) wanted.push("HAZE");
    tile.material = view.surface.material(...wanted);
    tile.userData.far = Math.max(0, center.distanceTo(camera.position) - radius);
  }
}

// Whether something of a tile may stand in the way from `eye` to `ego`: it is close to the line, and over the ground.
function crosses(tile, eye, ego, ground) {
  const { min, max } = tile.geometry.boundingBox, world = tile.matrix, scale = world.getMaxScaleOnAxis();
  if (new THREE.Vector3(0, 0, max.z).applyMatrix4(world).z < ground + 0.9) return false;
  const [from, to] = [eye, ego].map((point) => point.clone().applyMatrix4(world.clone().invert()));
  const away = (share) => {  // [voxels] of a point of the line
    const at = from.clone().lerp(to, share);
    return at.distanceTo(at.clone().clamp(min, max));
  };
  let [low, high] = [0, 1];  // the distance to a box has one minimum along a line
  for (let round = 0; round < 16; round++) {
    const [a, b] = [low + (high - low) / 3, high - (high - low) / 3];
    if (away(a) < away(b)) high = b; else low = a;
  }
  return away((low + high) / 2) * scale < CLEARANCE;
}
