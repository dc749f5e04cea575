// A picture becomes the model's pixels, and outputs become an answer: what preprocess.py and postprocess.py do.

// image: {data: RGBA bytes, width, height}. Returns {pixels: RGB bytes, shape: [1, H, W, 3], geometry}.
export function preprocess(image, config) {
  const source = [image.height, image.width], resize = config.resize;
  const size = RESIZED[resize.mode](source, resize).map(side => Math.max(1, side));
  const canvas = ["letterbox", "fixed_height"].includes(resize.mode) ? resize.size : resize.pad_size;
  const model = config.crop ?? canvas ?? size;
  const pixels = new Uint8Array(model[0] * model[1] * 3);
  const fill = canvas ? [resize.pad_value].flat() : [0];
  for (let i = 0; i < pixels.length; i++) pixels[i] = fill[i % 3 % fill.length];
  const [ty, sy, height] = overlap(model[0], size[0], config), [tx, sx, width] = overlap(model[1], size[1], config);
  const region = resizeRegion(image, size, [sy, sx, height, width], config);
  for (let y = 0; y < height; y++)
    pixels.set(region.subarray(y * width * 3, (y + 1) * width * 3), ((ty + y) * model[1] + tx) * 3);
  const geometry = {source, scale: [size[0] / source[0], size[1] / source[1]], offset: [ty - sy, tx - sx]};
  return {pixels, shape: [1, model[0], model[1], 3], geometry};
}

const roundEven = x => Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
const scaled = (source, ratio) => source.map(side => roundEven(side / ratio));
const ratios = (source, size) => [source[0] / size[0], source[1] / size[1]];
const RESIZED = {
  exact: (source, {size}) => size,
  letterbox: (source, {size}) => scaled(source, Math.max(...ratios(source, size))),
  cover: (source, {size}) => scaled(source, Math.min(...ratios(source, size))),
  fixed_height: (source, {size}) => [size[0], Math.min(size[1], Math.ceil(size[0] * source[1] / source[0]))],
  bounded_edges: (source, {size, max_size}) => {
    const scale = Math.min(size / Math.min(...source), max_size / Math.max(...source));
    return source.map(side => Math.floor(side * scale));
  },
  shortest_edge: (source, {size, max_size, multiple_of}) => {
    const shorter = Math.min(...source), longer = Math.max(...source), step = multiple_of ?? 1;
    const bounded = max_size && longer / shorter * size > max_size;
    const exact = bounded ? max_size * shorter / longer : size, short = bounded ? roundEven(exact) : size;
    const long = short === shorter ? longer : Math.trunc(exact * longer / shorter);
    const sides = [short, long].map(side => Math.max(step, side - side % step));
    return source[0] <= source[1] ? sides : sides.reverse();
  },
};

function overlap(target, source, config) {
  const half = (source - target) / 2;
  if (half >= 0) return [0, config.crop_offset === "floor" ? Math.floor(half) : roundEven(half), target];
  const atStart = config.resize.pad_place === "top_left" || config.resize.mode === "fixed_height";
  return [atStart ? 0 : Math.floor(-half), 0, source];
}

function resizeRegion(image, size, [startY, startX, height, width], config) {
  const {interpolation: name, antialias} = config, rgb = toRgb(image);
  const rows = chooseTaps(image.height, size[0], startY, height, name, antialias);
  const columns = chooseTaps(image.width, size[1], startX, width, name, antialias);
  const lost = [image.height - size[0], image.width - size[1]];
  const heightFirst = config.pass_order === "pillow13" && lost[0] > Math.max(0, 2 * lost[1]);
  const exact = !antialias && ["bilinear", "bicubic"].includes(name);  // no level between the two passes
  let values = {data: rgb, height: image.height, width: image.width};
  for (const axis of heightFirst ? [0, 1] : [1, 0]) {
    values = weigh(values, axis, axis ? columns : rows);
    if (!exact) values.data = toLevels(values.data);
  }
  return toLevels(values.data);
}

const toLevels = values => Uint8Array.from(values, v => Math.min(255, Math.max(0, Math.floor(v + 0.5))));

function toRgb({data, width, height}) {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c];
  return rgb;
}

function weigh({data, height, width}, axis, taps) {
  const [newHeight, newWidth] = axis ? [height, taps.length] : [taps.length, width];
  const result = new Float32Array(newHeight * newWidth * 3);
  for (let y = 0; y < newHeight; y++) for (let x = 0; x < newWidth; x++) for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (const [place, weight] of taps[axis ? x : y])
      sum += weight * data[((axis ? y : place) * width + (axis ? place : x)) * 3 + c];
    result[(y * newWidth + x) * 3 + c] = sum;
  }
  return {data: result, height: newHeight, width: newWidth};
}

// For each pixel: [[place in the source, weight], ...].
function chooseTaps(source, target, start, length, name, antialias) {
  const scale = source / target, inside = place => Math.min(source - 1, Math.max(0, place));
  const plain = !antialias && ["bilinear", "bicubic"].includes(name);
  let sum = 0.5 * scale, most = 0;  // Pillow adds up its places
  for (let i = 0; i < start; i++) sum += scale;
  const found = Array.from({length}, (_, i) => {
    const centre = (start + i + 0.5) * scale, exact = Math.floor(sum);
    sum += scale;
    if (source === target) return [[start + i, 1]];
    if (name === "nearest") return [[inside(Math.floor(Math.fround((start + i) * Math.fround(scale)))), 1]];
    if (name === "nearest-exact") return [[inside(exact), 1]];
    const [support, curve] = plain && name === "bicubic" ? [2, x => cubic(x, -0.75)] : FILTERS[name];
    const stretch = plain ? 1 : Math.max(scale, 1), taps = [];
    const first = plain ? Math.floor(centre - 0.5) - support + 1 : Math.max(0, Math.floor(centre - support * stretch + 0.5));
    const last = plain ? first + 2 * support : Math.min(source, Math.floor(centre + support * stretch + 0.5));
    for (let at = first; at < last; at++) taps.push([inside(at), curve(Math.abs(at + 0.5 - centre) / stretch)]);
    const total = taps.reduce((sum, [, weight]) => sum + weight, 0);
    for (const tap of taps) most = Math.max(most, tap[1] /= total);
    return taps;
  });
  if (antialias && ["bilinear", "bicubic"].includes(name) && most) {  // PyTorch's are whole numbers of 16 bits
    const unit = 2 ** Math.min(22, Math.floor(Math.log2((2 ** 15 - 0.5) / most)));
    for (const tap of found.flat()) tap[1] = Math.floor(tap[1] * unit + 0.5) / unit;
  }
  return found;
}

const sinc = x => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
const cubic = (x, a) => x < 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
const FILTERS = {
  bilinear: [1, x => Math.max(0, 1 - x)],
  bicubic: [2, x => cubic(x, -0.5)],
  lanczos: [3, x => x < 3 ? sinc(x) * sinc(x / 3) : 0],
  box: [0.5, x => x <= 0.5 ? 1 : 0],
  hamming: [1, x => x < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0],
};

// outputs: {name: {data, dims}} of one picture.
export function postprocess(outputs, geometry, labels, options) {
  if (outputs.embedding) {
    const values = Array.from(outputs.embedding.data), length = Math.hypot(...values);
    return {embedding: values.map(value => value / length)};
  }
  const name = ({id, score, ...rest}) => ({class_id: id, label: labels[id], score, ...rest});
  if (outputs.logits) return {classes: readClasses(Array.from(outputs.logits.data), options).map(name)};
  return {detections: readDetections(outputs, options).map(({box, ...rest}) => name({...rest, box: toSource(box, geometry)}))};
}

function readClasses(logits, {activation, top_k, thresholds}) {
  const most = Math.max(...logits), sigmoid = activation === "sigmoid";
  const powers = logits.map(v => sigmoid ? 1 / (1 + Math.exp(-v)) : Math.exp(v - most));
  const total = sigmoid ? 1 : powers.reduce((sum, v) => sum + v, 0);
  const found = powers.map((power, id) => ({id, score: power / total})).sort((a, b) => b.score - a.score);
  return found.filter(({id, score}) => !sigmoid || score > thresholds[id]).slice(0, top_k);
}

export function readDetections({boxes, scores, class_ids: classIds}, options) {
  const count = boxes.dims[1], perBox = classIds ? 1 : scores.dims[2], most = options.candidates_per_class;
  const least = Array.from({length: classIds ? 0 : perBox}, (_, id) => {
    if (most === null || most >= count) return -Infinity;
    return Float32Array.from({length: count}, (_, row) => scores.data[row * perBox + id]).sort()[count - most];
  });
  let found = [];
  for (let row = 0; row < count; row++) for (let k = 0; k < perBox; k++) {
    const score = scores.data[row * perBox + k], id = classIds ? Number(classIds.data[row]) : k;
    if (score > Math.fround(options.thresholds[id]) && !(score < least[id]))
      found.push({id, score: Math.min(score, 1), box: Array.from(boxes.data.subarray(4 * row, 4 * row + 4))});
  }
  if (options.class_filter) found = found.filter(({id}) => options.class_filter.includes(id));
  found.sort((a, b) => b.score - a.score);
  const kept = [], isRival = (a, b) => options.nms === "class_agnostic" || a.id === b.id;
  for (const candidate of found) {
    if (kept.length === options.max_detections) break;
    const loses = kept.some(other => isRival(candidate, other) && iou(candidate.box, other.box) > options.iou_threshold);
    if (options.nms === "none" || !loses) kept.push(candidate);
  }
  return kept;
}

function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared);
}

function toSource(box, {source, scale, offset}) {
  return box.map((value, i) => {
    const axis = 1 - i % 2;
    return Math.min(source[axis], Math.max(0, (value - offset[axis]) / scale[axis]));
  });
}
