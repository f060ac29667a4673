/** All points of the map in one WebGL draw call. */

/** How a point is drawn; the values of `Scatter.state`. */
export const State = { filtered: 0, plain: 1, dim: 2, selected: 3 } as const;

/** What part of the plane is seen: its middle, and how often the square [-1, 1] x [-1, 1] fits the canvas' shorter side. */
export interface Camera {
  x: number;
  y: number;
  zoom: number;
}

const VERTEX = `#version 300 es
in vec2 place;
in float colour;
in float state;
uniform vec2 middle, scale;
uniform float size;
uniform sampler2D palette;
out vec4 ink;
void main() {
  gl_Position = vec4((place - middle) * scale, 0.0, 1.0);
  gl_PointSize = state == 3.0 ? 1.35 * size : size;
  ink = texelFetch(palette, ivec2(int(colour), int(state)), 0);
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 ink;
uniform float round;
out vec4 colour;
void main() {
  vec2 off = gl_PointCoord - 0.5;
  if (round > 0.5 && dot(off, off) > 0.25) discard;
  colour = ink;
}`;

// in the order of `State`: how opaque, and how much of its colour a point keeps against that of missing values
const LOOKS = [
  { alpha: 0.08, own: 0 },
  { alpha: 0.75, own: 1 },
  { alpha: 0.13, own: 0.4 },
  { alpha: 0.95, own: 1 },
] as const;

// while the map moves, a large one is drawn thinned to about this many points
const MOVING = 250_000;
// the farthest that WebGL lets lie between two values of an attribute, in bytes
const LARGEST_STRIDE = 255;
const BYTES_OF_PLACE = 8;

export class Scatter {
  private readonly gl: WebGL2RenderingContext;
  private readonly program: WebGLProgram;
  private readonly buffers: Record<"place" | "colour" | "state", WebGLBuffer>;
  private readonly pixel = new Uint8Array(4);
  private count = 0;

  /** @throws Error where the browser has no WebGL 2. */
  constructor(private readonly canvas: HTMLCanvasElement) {
    const gl = canvas.getContext("webgl2", { antialias: false, depth: false, premultipliedAlpha: true });
    if (!gl) throw new Error("The map needs WebGL 2, which this browser does not offer.");
    this.gl = gl;
    this.program = linked(gl);
    gl.useProgram(this.program);
    this.buffers = { place: gl.createBuffer()!, colour: gl.createBuffer()!, state: gl.createBuffer()! };
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** Make room for n points, all without a place. */
  resize(n: number): void {
    this.count = 0;
    this.fill("place", 8 * n);
    this.fill("colour", n);
    this.fill("state", n);
  }

  /** The first `count` points have their places. */
  places(points: Float32Array, from: number, count: number): void {
    this.write("place", points.subarray(2 * from, 2 * count), 8 * from);
    this.count = count;
  }

  /** An entry of the palette for each point. */
  colours(entries: Uint8Array): void {
    this.write("colour", entries, 0);
  }

  /** One of `State` for each point. */
  states(states: Uint8Array): void {
    this.write("state", states, 0);
  }

  /** A colour for each entry, bytes [256, 4], the last for points without a value. */
  palette(bytes: Uint8Array): void {
    const { gl } = this;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, LOOKS.length, 0, gl.RGBA, gl.UNSIGNED_BYTE, looks(bytes));
  }

  /** Draw what the camera sees; `moving` thins large maps for the moment. */
  draw(camera: Camera, moving = false): void {
    const { gl, canvas, program } = this;
    const every = moving
      ? Math.min(Math.ceil(this.count / MOVING), Math.floor(LARGEST_STRIDE / BYTES_OF_PLACE)) || 1
      : 1;
    const side = Math.min(canvas.width, canvas.height);
    const at = (name: string) => gl.getUniformLocation(program, name);
    const size = this.size(camera, every);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(at("middle"), camera.x, camera.y);
    gl.uniform2f(at("scale"), (camera.zoom * side) / canvas.width, (camera.zoom * side) / canvas.height);
    gl.uniform1f(at("size"), size);
    gl.uniform1f(at("round"), size > 3 ? 1 : 0);
    this.attribute("place", 2, gl.FLOAT, BYTES_OF_PLACE * every);
    this.attribute("colour", 1, gl.UNSIGNED_BYTE, every);
    this.attribute("state", 1, gl.UNSIGNED_BYTE, every);
    gl.drawArrays(gl.POINTS, 0, Math.floor(this.count / every));
  }

  /** Wait until everything is drawn; a frame's time is measured up to here. */
  finish(): void {
    this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, this.pixel);
  }

  /** What draws: the name of the graphics card, or of the software in its place. */
  get renderer(): string {
    const known = this.gl.getExtension("WEBGL_debug_renderer_info");
    return String(this.gl.getParameter(known ? known.UNMASKED_RENDERER_WEBGL : this.gl.RENDERER));
  }

  /** Points shrink where many share the room, and grow a little as one goes nearer; in pixels of the canvas. */
  private size(camera: Camera, every: number): number {
    const side = Math.min(this.canvas.width, this.canvas.height) / devicePixelRatio;
    const room = (0.75 * side) / Math.sqrt(Math.max(this.count / every, 1));
    const size = Math.min(Math.max(room, 1.3), 6) * Math.max(camera.zoom, 0.5) ** 0.4;
    return Math.min(size, 12) * devicePixelRatio;
  }

  private fill(name: keyof Scatter["buffers"], bytes: number): void {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[name]);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, bytes, this.gl.DYNAMIC_DRAW);
  }

  private write(name: keyof Scatter["buffers"], values: ArrayBufferView, at: number): void {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[name]);
    this.gl.bufferSubData(this.gl.ARRAY_BUFFER, at, values as Uint8Array<ArrayBuffer>);
  }

  private attribute(name: keyof Scatter["buffers"], width: number, type: number, stride: number): void {
    const { gl } = this;
    const place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, type, false, stride, 0);
  }
}

/** The palette as each state shows it, one line a state, multiplied by its opacity. */
function looks(palette: Uint8Array): Uint8Array {
  const plain = palette.subarray(-4);
  const channel = (own: number, grey: number, share: number) => own * share + grey * (1 - share);
  return Uint8Array.from(
    LOOKS.flatMap(({ alpha, own }) =>
      Array.from(palette, (value, i) => (i % 4 === 3 ? 255 * alpha : alpha * channel(value, plain[i % 4]!, own))),
    ),
  );
}

function linked(gl: WebGL2RenderingContext): WebGLProgram {
  const program = gl.createProgram()!;
  for (const [type, source] of [
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ] as const) {
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "no shader");
  return program;
}
