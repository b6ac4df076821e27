// Marks on the ground around the road user that is selected: its box, the handle that turns it, and its way.
import { handle } from "./hand.js";
import { compose, relative } from "./pose.js";
import { THREE } from "./scenery.js";
import { Sketch, plain } from "./sketch.js";

const COLOUR = [255, 128, 0], HELD = [255, 255, 255], WIDE = 0.22;  // [m]

export class Selection {
  constructor(view) {
    this.view = view;
    this.sketch = new Sketch(THREE.Mesh, plain({ side: THREE.DoubleSide, depthTest: false }), 6 * 400);
    this.sketch.object.renderOrder = 2;  // over all else
    view.scene.add(this.sketch.object);
  }

  // `user`, or nobody, at `pose` in the world where a hand holds it; `path` are poses in the world that it is told to pass.
  draw(user, pose, path) {
    this.sketch.begin();
    if (user) {
      const [l, w] = [user.size[0] / 2 + 0.3, user.size[1] / 2 + 0.3], at = pose ?? user.at, colour = pose ? HELD : COLOUR;
      const way = [...this.view.recording.frames].map((frame) => frame.users.get(user.id)?.pose).filter(Boolean);
      for (let k = 0; k + 1 < way.length; k++) this.stripe(way[k], way[k + 1], COLOUR);
      for (const point of path) this.square(point, 0.6, COLOUR);
      const corners = [[l, w], [-l, w], [-l, -w], [l, -w]].map((corner) => compose(at, corner));
      corners.forEach((corner, k) => this.stripe(corner, corners[(k + 1) % 4], colour));
      const end = handle(user, at);
      this.stripe(compose(at, [l, 0]), end, colour);
      this.square(end, 0.6, colour);
    }
    this.sketch.end();
  }

  square(at, half, colour) { this.stripe(compose(at, [-half, 0]), compose(at, [half, 0]), colour, 2 * half); }

  stripe(a, b, colour, wide = WIDE) {
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]], length = Math.hypot(dx, dy);
    if (!length) return;
    const [ax, ay] = [-dy / length * wide / 2, dx / length * wide / 2], { recording, frame } = this.view;
    const point = ([x, y], sign) => this.sketch.point(
      x + sign * ax, y + sign * ay, recording.ground(frame, ...relative(frame.pose, [x, y])) + 0.12, colour);
    point(a, 1); point(a, -1); point(b, -1);
    point(a, 1); point(b, -1); point(b, 1);
  }
}
