// Meshes and lines that are no voxels.
import { THREE, scenery } from "./scenery.js";

export const plain = (options) => new THREE.ShaderMaterial({  // the vertices' colours, and no more
  vertexShader: "attribute vec3 color; varying vec3 vColour; void main() { vColour = color; gl_Position = projectionMatrix * (modelViewMatrix * vec4(position, 1.0)); }",
  fragmentShader: "varying vec3 vColour; void main() { gl_FragColor = vec4(vColour, 1.0); }",
  ...options,
});

export function fixedMesh(name, options) {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(scenery[`${name}_vertices`].data, 3));
  geometry.setAttribute("color", new THREE.BufferAttribute(scenery[`${name}_colours`].data, 3));
  geometry.setIndex(new THREE.BufferAttribute(scenery[`${name}_triangles`].data, 1));
  const made = new THREE.Mesh(geometry, plain(options));
  made.matrixAutoUpdate = made.frustumCulled = false;
  return made;
}

// A mesh or line whose points are written anew for every picture.
export class Sketch {
  constructor(Kind, material, most) {
    this.geometry = new THREE.BufferGeometry();
    this.points = new Float32Array(3 * most);
    this.colours = new Float32Array(3 * most);
    for (const [name, array] of [["position", this.points], ["color", this.colours]])
      this.geometry.setAttribute(name, new THREE.BufferAttribute(array, 3));
    this.object = new Kind(this.geometry, material);
    this.object.frustumCulled = false;
  }

  begin() { this.used = 0; }

  point(x, y, z, colour) {
    if (3 * this.used >= this.points.length) return;
    this.points.set([x, y, z], 3 * this.used);
    this.colours.set(colour.map((c) => c / 255), 3 * this.used++);
  }

  end() {
    this.geometry.setDrawRange(0, this.used);
    for (const attribute of [this.geometry.attributes.position, this.geometry.attributes.color]) {
      attribute.clearUpdateRanges();
      attribute.addUpdateRange(0, 3 * this.used);
      attribute.needsUpdate = true;
    }
  }
}
