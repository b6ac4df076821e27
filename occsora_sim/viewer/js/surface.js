// The shader of voxels.
import { THREE } from "./scenery.js";

export const CLEARANCE = 2.6;  // [m] around the line from the camera to the ego
const SHADERS = {
  vertexShader: `
    attribute vec4 color; varying vec4 vColour;
    #ifdef PLACED
    varying vec3 vPlace;
    #endif
    void main() {
      vec4 place = modelMatrix * vec4(position, 1.0);
      vColour = color;
      #ifdef PLACED
      vPlace = place.xyz;
      #endif
      gl_Position = projectionMatrix * (viewMatrix * place);
    }`,
  fragmentShader: `
    uniform vec3 ego, eye, haze; uniform vec2 reach, start, turn; uniform float ground, edge, base, voxel;
    varying vec4 vColour;
    #ifdef PLACED
    varying vec3 vPlace;
    #endif
    void main() {
      #ifdef OPEN  // what stands between the camera and the ego is cut away
      vec3 line = ego - eye;
      float share = clamp(dot(vPlace - eye, line) / dot(line, line), 0.0, 1.0);
      if (vPlace.z > ground + 0.9 && distance(vPlace, eye + share * line) < ${CLEARANCE}) discard;
      #endif
      vec3 colour = vColour.rgb;
      #ifdef BAND  // crowns are lighter upwards, walls have storeys
      float layer = floor((vPlace.z - base) / voxel + 0.01);
      if (vColour.a > 0.6) colour *= min(1.0, 0.82 + 0.012 * layer);
      else if (vColour.a > 0.2 && mod(layer, 7.0) > 3.5) colour *= 0.87;
      #endif
      #ifdef EDGE  // the border of what the first frame showed
        vec2 from = vPlace.xy - start;
        from = abs(vec2(turn.x * from.x + turn.y * from.y, turn.x * from.y - turn.y * from.x));
        if (abs(max(from.x, from.y) - edge) < 0.16) colour = vec3(0.54, 0.25, 0.82);
      #endif
      #ifdef HAZE
      float far = clamp((distance(vPlace.xy, ego.xy) - reach.x) / (reach.y - reach.x), 0.0, 1.0);
      colour = mix(colour, haze, far * far * (3.0 - 2.0 * far));
      #endif
      gl_FragColor = vec4(colour, 1.0);
    }`,
};

// Materials of one view, that share its uniforms.
export class Surface {
  constructor(uniforms) { this.uniforms = uniforms; this.materials = new Map(); }

  // The shader that does what is asked for (OPEN, BAND, EDGE, HAZE) and no more: where there is no GPU every line of it counts.
  material(...wanted) {
    const key = wanted.join();
    if (key) wanted.push("PLACED");  // needs to know where it is
    if (!this.materials.has(key))
      this.materials.set(key, new THREE.ShaderMaterial({ uniforms: this.uniforms, ...SHADERS, defines: Object.fromEntries(wanted.map((name) => [name, 1])) }));
    return this.materials.get(key);
  }
}
