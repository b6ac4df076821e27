// Poses in the plane: x, y [m], yaw [rad]. World and ego frames are the project's: x forward, y left, z up.
import { THREE } from "./scenery.js";

export const wrap = (angle) => Math.atan2(Math.sin(angle), Math.cos(angle));
export const between = (a, b, share) => [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + wrap(b[2] - a[2]) * share];
export const compose = (a, b) => {
  const c = Math.cos(a[2]), s = Math.sin(a[2]);
  return [a[0] + c * b[0] - s * b[1], a[1] + s * b[0] + c * b[1], a[2] + (b[2] ?? 0)];
};
export const relative = (a, b) => {
  const c = Math.cos(a[2]), s = Math.sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
  return [c * x + s * y, -s * x + c * y, (b[2] ?? 0) - a[2]];
};
export const matrix = (pose, z = 0, scale = 1) => {
  const c = Math.cos(pose[2]) * scale, s = Math.sin(pose[2]) * scale;
  return new THREE.Matrix4().set(c, -s, 0, pose[0], s, c, 0, pose[1], 0, 0, scale, z, 0, 0, 0, 1);
};
