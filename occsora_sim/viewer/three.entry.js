// What viewer.js uses of three 0.187.0. three.min.js is made of it, beside an installed three and esbuild, by
// esbuild three.entry.js --bundle --minify --format=iife --global-name=THREE --legal-comments=eof --outfile=three.min.js
export {
  BufferAttribute, BufferGeometry, ColorManagement, DoubleSide, Group, Line3, LinearSRGBColorSpace, LineBasicMaterial,
  LineSegments, Matrix4, Mesh, MeshBasicMaterial, PerspectiveCamera, Scene, ShaderMaterial, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
