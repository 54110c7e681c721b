"use strict";

// The same samples by a graphics processor: WebGL 2 evaluates the warp and the bilinear blend of each pixel in float32.
(() => {
  const HEAD = `#version 300 es
    precision highp float;
    precision highp int;
    precision highp sampler2D;
    uniform sampler2D picture;
    uniform bool border;
    out vec4 color;`;

  // Each takes a pixel of the output, and its point p in normalized coordinates, to pixels of the input.
  const SOURCES = {
    matrix: `
    uniform mat3 matrix;
    vec2 source(vec2 pixel, vec2 p) {
      vec3 at = matrix * vec3(pixel, 1.0);
      return at.xy / (abs(at.z) < 1e-12 ? 1e-12 : at.z);
    }`,
    lattice: `
    uniform vec2 values[36];
    uniform int count, taps;
    vec2 place(vec2 p) {
      float n = float(count);
      return taps == 4 ? (clamp(p, -1.0, 1.0) + 1.0) * (n - 3.0) / 2.0 + 1.0 : clamp((p * n + n - 1.0) / 2.0, 0.0, n - 1.0);
    }
    float kernel(float t) {
      float far = max(2.0 - t, 0.0), near = max(1.0 - t, 0.0);
      return taps == 4 ? (far * far * far - 4.0 * near * near * near) / 6.0 : near;
    }
    vec2 source(vec2 pixel, vec2 p) {
      vec2 at = place(p);
      ivec2 first = clamp(ivec2(floor(at)) - taps / 2 + 1, 0, count - taps);
      vec2 sum = pixel;
      for (int row = first.y; row < first.y + taps; row++) {
        float down = kernel(abs(at.y - float(row)));
        for (int column = first.x; column < first.x + taps; column++) {
          sum += down * kernel(abs(at.x - float(column))) * values[row * count + column];
        }
      }
      return sum;
    }`,
    spline: `
    uniform vec2 points[16];
    uniform vec2 values[19];
    vec2 source(vec2 pixel, vec2 p) {
      vec2 sum = pixel + values[16] + p.x * values[17] + p.y * values[18];
      for (int j = 0; j < 16; j++) {
        vec2 to = p - points[j];
        float r2 = dot(to, to);
        sum += (r2 > 0.0 ? 0.5 * r2 * log(r2) : 0.0) * values[j];
      }
      return sum;
    }`,
  };

  // Points further outside than one pixel see nothing: they move there, where the weights are of outer pixels alone.
  const BODY = `
    vec3 texel(ivec2 at, ivec2 size) {
      bool inside = all(greaterThanEqual(at, ivec2(0))) && all(lessThan(at, size));
      return inside ? texelFetch(picture, at, 0).rgb : vec3(0.0);
    }
    void main() {
      ivec2 size = textureSize(picture, 0);
      vec2 pixel = vec2(gl_FragCoord.x, float(size.y) - gl_FragCoord.y) - 0.5;
      vec2 at = source(pixel, (2.0 * pixel + 1.0) / vec2(size) - 1.0);
      at = border ? clamp(at, vec2(0.0), vec2(size - 1)) : clamp(at, vec2(-1.0), vec2(size));
      vec2 corner = floor(at);
      vec2 share = at - corner;
      ivec2 i = ivec2(corner);
      vec3 above = mix(texel(i, size), texel(i + ivec2(1, 0), size), share.x);
      vec3 below = mix(texel(i + ivec2(0, 1), size), texel(i + ivec2(1, 1), size), share.x);
      color = vec4(floor(255.0 * mix(above, below, share.y) + 0.5) / 255.0, 1.0);
    }`;

  /** The program of a fragment shader, or null where it does not compile. */
  function compiled(gl, source) {
    const program = gl.createProgram();
    const corners = "#version 300 es\nvoid main() { gl_Position = vec4(4 * (gl_VertexID & 1) - 1, 2 * (gl_VertexID & 2) - 1, 0, 1); }";
    for (const [type, text] of [[gl.VERTEX_SHADER, corners], [gl.FRAGMENT_SHADER, HEAD + source + BODY]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
  }

  /** The numbers of a warp, in pixels of the input, which its shader reads. */
  const numbers = {
    matrix: (gl, at, { matrix }, theta, w, h) =>
      gl.uniformMatrix3fv(at("matrix"), true, Playground.inPixels(matrix(theta, [w, h]), w, h)),
    lattice: (gl, at, { lattice }, theta, w, h) => {
      gl.uniform1i(at("count"), lattice.count);
      gl.uniform1i(at("taps"), lattice.taps);
      gl.uniform2fv(at("values"), theta.map((value, k) => (value * (k % 2 ? h : w)) / 2));
    },
    spline: (gl, at, { spline: { points, solution } }, theta, w, h) => {
      const values = new Float32Array(2 * (points.length + 3));
      for (let i = 0; i < values.length; i++) {
        for (let j = 0; j < points.length; j++) values[i] += solution[(i >> 1) * points.length + j] * theta[2 * j + (i % 2)];
        values[i] *= (i % 2 ? h : w) / 2;
      }
      gl.uniform2fv(at("points"), points.flat());
      gl.uniform2fv(at("values"), values);
    },
  };

  /** Whether a program stands in for the graphics processor: it takes 25 to 100 ms, where `canvas.js` takes 10. */
  function emulated(gl) {
    const names = gl.getExtension("WEBGL_debug_renderer_info");
    const renderer = gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
    return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(renderer);
  }

  /**
   * A function that draws a warped picture on this canvas and returns true, or null where the browser has no WebGL 2, or
   * only an emulated one. Tests accept that.
   */
  Playground.onGraphics = (canvas, software = false) => {
    // Kept after drawing, so that "Save image as" saves it.
    const options = { alpha: false, antialias: false, preserveDrawingBuffer: true, failIfMajorPerformanceCaveat: !software };
    const gl = canvas.getContext("webgl2", options);
    if (!gl || (!software && emulated(gl))) return null;
    const programs = Object.fromEntries(Object.entries(SOURCES).map(([kind, source]) => [kind, compiled(gl, source)]));
    if (Object.values(programs).includes(null)) return null;
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    let uploaded = null;
    return (family, theta, { pixels, w, h }, border) => {
      if (uploaded !== pixels) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, w, h, 0, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
      uploaded = pixels;
      const kind = Object.keys(SOURCES).find((name) => family[name]);
      const program = programs[kind];
      const at = (name) => gl.getUniformLocation(program, name);
      gl.viewport(0, 0, w, h);
      gl.useProgram(program);
      gl.uniform1i(at("border"), border ? 1 : 0);
      numbers[kind](gl, at, family, theta, w, h);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      return true;
    };
  };
})();
