// Plan and route on the ground, shadows under road users, and their boxes.
import { layers } from "./layers.js";
import { compose, relative } from "./pose.js";
import { COLOURS, rgbs } from "./scenery.js";

export function drawMarkings(view, offset) {
  const { recording, frame, ego, lines, boxes } = view;
  lines.begin();
  const height = (world) => recording.ground(frame, ...relative(frame.pose, world));
  if (layers.route.on) {
    const at = recording.route.reduce((best, p, i) => {
      const far = Math.hypot(p[0] - ego[0], p[1] - ego[1]);
      return far < best[1] ? [i, far] : best;
    }, [0, Infinity])[0];
    ribbon(view, recording.route.slice(at), 0.35, COLOURS.ROUTE, 0.05, height);
  }
  if (layers.plan.on && frame.planned.length) {
    const ahead = frame.planned.filter((p) => relative(offset, p)[0] > 0.5).map((p) => compose(frame.pose, p));
    ribbon(view, [ego, ...ahead], 1.2, COLOURS.PLAN, 0.08, height);
  }
  for (const user of view.users) {
    const z = height(user.at) + 0.03, dark = [52, 55, 60], [l, w] = [user.size[0] / 2 + 0.1, user.size[1] / 2 + 0.1];
    const corner = (x, y) => lines.point(...compose(user.at, [x, y]).slice(0, 2), z, dark);
    for (const [x, y] of [[l, w], [-l, w], [-l, -w], [l, w], [-l, -w], [l, -w]]) corner(x, y);
  }
  lines.end();
  boxes.begin();
  if (layers.boxes.on)
    for (const user of view.users) {
      const z = height(user.at), colour = rgbs[user.label].map((c) => c * 0.55), [l, w, h] = [user.size[0] / 2, user.size[1] / 2, user.size[2]];
      const corner = (i) => [...compose(user.at, [i & 1 ? l : -l, i & 2 ? w : -w]).slice(0, 2), z + (i & 4 ? h : 0.05)];
      for (const [a, b] of [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]]) {
        boxes.point(...corner(a), colour);
        boxes.point(...corner(b), colour);
      }
      const nose = compose(user.at, [l + 0.6 + 0.3 * user.speed, 0]);  // longer the faster it is
      boxes.point(...compose(user.at, [l, 0]).slice(0, 2), z + h / 2, colour);
      boxes.point(nose[0], nose[1], z + h / 2, colour);
    }
  boxes.end();
}

function ribbon(view, points, width, colour, lift, height) {
  const spaced = [];  // a point every 0.4 m within the grid
  for (let i = 0; i + 1 < points.length; i++) {
    const [a, b] = [points[i], points[i + 1]], count = Math.max(1, Math.min(500, Math.round(Math.hypot(b[0] - a[0], b[1] - a[1]) / 0.4)));
    for (let j = 0; j < count; j++) spaced.push([a[0] + (b[0] - a[0]) * j / count, a[1] + (b[1] - a[1]) * j / count]);
  }
  if (points.length) spaced.push(points[points.length - 1]);
  for (let round = 0; round < 3; round++)
    for (let i = 1; i + 1 < spaced.length; i++)
      spaced[i] = [0, 1].map((a) => (spaced[i - 1][a] + 2 * spaced[i][a] + spaced[i + 1][a]) / 4);
  let before = null;
  for (let i = 0; i + 1 < spaced.length; i++) {
    const here = spaced[i];
    if (Math.hypot(here[0] - view.ego[0], here[1] - view.ego[1]) > view.border) break;
    const along = [spaced[i + 1][0] - here[0], spaced[i + 1][1] - here[1]], length = Math.hypot(...along) || 1;
    const across = [-along[1] / length * width / 2, along[0] / length * width / 2], z = height(here) + lift;
    const pair = [[here[0] + across[0], here[1] + across[1], z], [here[0] - across[0], here[1] - across[1], z]];
    if (before) for (const corner of [before[0], before[1], pair[1], before[0], pair[1], pair[0]]) view.lines.point(...corner, colour);
    before = pair;
  }
}
