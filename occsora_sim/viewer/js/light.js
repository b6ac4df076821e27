// Light on the faces of voxels, after rendering/mesh.py.
import { scenery } from "./scenery.js";

// +x, -x, +y, -y, +z; nothing below the ground is looked at.
export const AMBIENT = [0.6, 0.56, 0.58, 0.58, 0.63], OCCLUSION = [0, 0.55, 0.72, 0.87, 1];
export const SHADES = new Uint8Array(80);  // number of each pair of free and sunny cells around a corner
for (let free = 1, number = 0; free < 5; free++) for (let sunny = 0; sunny <= free; sunny++) SHADES[16 * sunny + free] = number++;
export const FULL = (1 - AMBIENT[4]) / scenery.meta.sun[2];  // so that what lies flat in the sun has the palette's colour

// Of each cell 0 where it is solid, 1 where it is free, 17 where the sun reaches it too. Shadows go down layer by layer.
export function lights(cells, nx, ny, nz, sun) {
  const sy = nz + 2, sx = (ny + 2) * sy, light = new Uint8Array(cells.length), slope = [sun[0] / sun[2], sun[1] / sun[2]];
  for (let z = nz + 1; z >= 0; z--) {
    const dx = Math.round(slope[0] * (z + 1)) - Math.round(slope[0] * z), dy = Math.round(slope[1] * (z + 1)) - Math.round(slope[1] * z);
    const up = dx * sx + dy * sy + 1;
    for (let x = 0; x < nx + 2; x++) {
      const within = z <= nz && x + dx >= 0 && x + dx < nx + 2;
      for (let y = 0, here = x * sx + z; y < ny + 2; y++, here += sy)
        if (!cells[here]) light[here] = within && y + dy >= 0 && y + dy < ny + 2 && light[here + up] < 2 ? 1 : 17;
    }
  }
  return light;
}
