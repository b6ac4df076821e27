// The pointer on the picture: it picks road users, drags and turns them, and points at the ground.
import { clock, paint, play, seek, views } from "./clock.js";
import { compose, relative } from "./pose.js";
import { $, THREE } from "./scenery.js";

const CLOSE = 0.9;  // [m] from the handle
const LEAST = 0.6;  // [m] from the middle of the smallest that is hit

// Where the handle is by which a road user is turned [m], in the world.
export const handle = (user, pose) => compose(pose, [user.size[0] / 2 + 2, 0]);

function ray(view, event) {
  const { left, top, width, height } = view.pane.getBoundingClientRect(), eye = view.camera.position;
  const at = new THREE.Vector3(2 * (event.clientX - left) / width - 1, 1 - 2 * (event.clientY - top) / height, 0.5);
  return { eye, way: at.unproject(view.camera).sub(eye) };
}

// World x, y of the ground under the pointer; nothing where it points at the sky.
function ground(view, event) {
  const { eye, way } = ray(view, event);
  let z = view.ground, place = null;
  for (let round = 0; round < 3; round++) {
    const share = (z - eye.z) / way.z;
    if (!(share > 0)) return null;
    place = [eye.x + share * way.x, eye.y + share * way.y];
    z = view.recording.ground(view.frame, ...relative(view.frame.pose, place));
  }
  return place;
}

// The nearest road user whose box is under the pointer.
function pick(view, event) {
  const { eye, way } = ray(view, event);
  let found = null, nearest = Infinity;
  for (const user of view.users) {
    const z = view.recording.ground(view.frame, ...relative(view.frame.pose, user.at));
    const [x, y] = relative(user.at, [eye.x, eye.y]), [dx, dy] = relative([0, 0, user.at[2]], [way.x, way.y]);
    const [l, w] = user.size.map((side) => Math.max(side / 2, LEAST));
    let enter = 0, leave = Infinity;
    for (const [from, along, low, high] of [[x, dx, -l, l], [y, dy, -w, w], [eye.z - z, way.z, 0, user.size[2]]]) {
      const [a, b] = [(low - from) / along, (high - from) / along];
      enter = Math.max(enter, Math.min(a, b));
      leave = Math.min(leave, Math.max(a, b));
    }
    if (enter < leave && enter < nearest) [found, nearest] = [user, enter];
  }
  return found;
}

export class Hand {
  // `editor` has the road user that is selected, is told which one is, and moves it to a pose in the world.
  constructor(editor) {
    this.editor = editor;
    for (const [kind, act] of [["pointerdown", "down"], ["pointermove", "move"], ["pointerup", "up"], ["pointercancel", "up"]])
      $("stage").addEventListener(kind, (event) => { if (this[act](event)) event.stopPropagation(); }, true);  // before the camera's
  }

  // The next click on the ground is for `take`, as x, y in the ego frame at the start.
  point(text, take) {
    this.pointing = take;
    $("notice").textContent = take ? text : "";
    $("scene").classList.toggle("pointing", Boolean(take));
  }

  down(event) {
    if (event.button || event.target !== $("scene")) return false;
    const [view] = views, place = ground(view, event), { selected } = this.editor;
    if (this.pointing) {
      const take = this.pointing;
      if (!place) return true;
      this.point("", null);
      take(relative(view.recording.frames[0].pose, place).slice(0, 2));
      return true;
    }
    const turned = selected && place && clock.time === 0 ? handle(selected, selected.at) : null;
    if (turned && Math.hypot(place[0] - turned[0], place[1] - turned[1]) < CLOSE) this.drag = { user: selected, turn: true };
    else {
      const user = pick(view, event);
      if (!user) return false;
      this.editor.select(user.id);
      const from = clock.time === 0 && place ? [user.at[0] - place[0], user.at[1] - place[1]] : [0, 0];
      this.drag = { user, from };
    }
    event.target.setPointerCapture(event.pointerId);
    this.began = [event.clientX, event.clientY];
    return true;
  }

  move(event) {
    const { drag } = this;
    if (!drag) return false;
    const place = ground(views[0], event), far = Math.hypot(event.clientX - this.began[0], event.clientY - this.began[1]);
    if (!place || (!drag.pose && far < 4)) return true;  // [pixels]: a click selects alone
    if (clock.time > 0) { play(false); seek(0); }
    const { at } = drag.user, yaw = this.editor.selected?.at[2] ?? at[2];
    drag.pose = drag.turn ? [at[0], at[1], Math.atan2(place[1] - at[1], place[0] - at[0])] : [place[0] + drag.from[0], place[1] + drag.from[1], yaw];
    paint();
    return true;
  }

  up() {
    const { drag } = this;
    if (!drag) return false;
    this.drag = null;
    if (drag.pose) {
      this.put = drag.pose;  // is shown until the server has answered
      this.editor.moved(drag.pose, drag.turn).finally(() => { this.put = null; paint(); });
    }
    return true;
  }

  // Where the hand holds the selected road user.
  get pose() { return this.drag?.pose ?? this.put; }
}
