import { mesh } from "./mesh.js";
import { hidden } from "./layers.js";
import { matrix, relative } from "./pose.js";
import { FREE, THREE, scenery } from "./scenery.js";

// The group of meshes of frame k: what stands still, and each road user with where it was.
export function buildFrame(view, k) {
  const { recording } = view, frame = recording.frames[k], { shape, voxel, lower } = recording.meta.grid;
  const [nx, ny, nz] = shape, labels = recording.labels(k), group = new THREE.Group(), users = [];
  for (let i = 0; i < labels.length; i++) if (hidden.has(labels[i])) labels[i] = FREE;
  const sun = (yaw) => { const [x, y, z] = scenery.meta.sun, c = Math.cos(yaw), s = Math.sin(yaw); return [c * x + s * y, c * y - s * x, z]; };
  const place = (geometries, pose, from) => geometries.map((geometry) => {
    const made = new THREE.Mesh(geometry, view.surface.material(...(geometry.userData.tall ? ["BAND"] : []), "HAZE"));
    made.matrixAutoUpdate = false;
    made.userData.base = matrix(pose).multiply(new THREE.Matrix4().makeTranslation(
      lower[0] + from[0] * voxel, lower[1] + from[1] * voxel, lower[2])).multiply(new THREE.Matrix4().makeScale(voxel, voxel, voxel));
    made.matrix.copy(made.userData.base);
    group.add(made);
    return made;
  });
  for (const user of frame.users.values()) {  // their voxels move with them until the next frame
    const [x, y, yaw] = relative(frame.pose, user.pose), c = Math.cos(yaw), s = Math.sin(yaw), margin = 0.45;
    const half = [user.size[0] / 2 + margin, user.size[1] / 2 + margin];
    const wide = Math.abs(c) * half[0] + Math.abs(s) * half[1], long = Math.abs(s) * half[0] + Math.abs(c) * half[1];
    const cell = (value, axis, n) => Math.min(n, Math.max(0, Math.floor((value - lower[axis]) / voxel)));
    const [x0, x1, y0, y1] = [cell(x - wide, 0, nx), cell(x + wide + voxel, 0, nx), cell(y - long, 1, ny), cell(y + long + voxel, 1, ny)];
    if (x1 <= x0 || y1 <= y0) continue;
    const own = new Uint8Array((x1 - x0) * (y1 - y0) * nz).fill(FREE);
    let found = false;
    for (let i = x0; i < x1; i++)
      for (let j = y0; j < y1; j++) {
        const px = lower[0] + (i + 0.5) * voxel - x, py = lower[1] + (j + 0.5) * voxel - y;
        if (Math.abs(c * px + s * py) > half[0] || Math.abs(c * py - s * px) > half[1]) continue;
        for (let z = 0; z < nz; z++) {
          const at = (i * ny + j) * nz + z;
          if (labels[at] !== user.label) continue;
          own[((i - x0) * (y1 - y0) + j - y0) * nz + z] = labels[at];
          labels[at] = FREE;
          found = true;
        }
      }
    if (found) users.push({ user, meshes: place(mesh(own, x1 - x0, y1 - y0, nz, sun(frame.pose[2])), frame.pose, [x0, y0]) });
  }
  const still = place(mesh(labels, nx, ny, nz, sun(frame.pose[2])), frame.pose, [0, 0]);
  for (const tile of still) {
    tile.geometry.computeBoundingSphere();
    tile.geometry.computeBoundingBox();
    const { min, max } = tile.geometry.boundingBox, corners = [[min.x, min.y], [min.x, max.y], [max.x, min.y], [max.x, max.y]];
    tile.userData.sphere = tile.geometry.boundingSphere.clone().applyMatrix4(tile.matrix);
    tile.userData.corners = corners.map(([x, y]) => new THREE.Vector3(x, y, 0).applyMatrix4(tile.matrix));
  }
  return { group, users, still };
}
