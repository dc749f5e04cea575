// What a detector or an explanation found, as shapes over the picture: one viewBox unit is one pixel of the upright image.

import {shape} from './elements.js';
import {colourOfDetection} from './results.js';

// COCO's persons: which of the 17 points are joined.
const BONES = [[0, 1], [0, 2], [1, 3], [2, 4], [5, 6], [5, 7], [7, 9], [6, 8], [8, 10], [5, 11], [6, 12], [11, 12], [11, 13], [13, 15],
    [12, 14], [14, 16]];
const LEAST_POINT = 0.5;

// Returns [x1, y1, x2, y2] in pixels, whatever form the answer has.
export function toCorners(box, form, image) {
    let [a, b, c, d] = box;
    if (form === 'xywh' || form === 'xywhn') {
        [c, d] = [a + c, b + d];
    }
    const scale = form === 'xyxyn' || form === 'xywhn';
    return scale ? [a * image.width, b * image.height, c * image.width, d * image.height] : [a, b, c, d];
}

// Returns one <g class="item"> for each detection, in the order of the answer.
export function drawDetections(answer) {
    return answer.detections.map((found, number) => {
        const colour = colourOfDetection(found, number);
        const [x1, y1, x2, y2] = toCorners(found.box, answer.box_format || 'xyxy', answer.image);
        const outline = found.corners
            ? {d: closed(found.corners)}
            : {d: closed([x1, y1, x2, y1, x2, y2, x1, y2])};
        const parts = [
            ...drawMask(found, colour),
            shape('path', {...outline, class: 'inside', fill: colour}),
            shape('path', {...outline, class: 'halo'}),
            shape('path', {...outline, class: 'edge', stroke: colour}),
            ...drawPoints(found.keypoints || [], colour),
        ];
        return shape('g', {class: 'item'}, shape('title', {}, `${found.label} ${found.score.toFixed(3)}`), ...parts);
    });
}

function closed(numbers) {
    const pairs = [];
    for (let i = 0; i < numbers.length; i += 2) {
        pairs.push(`${numbers[i]} ${numbers[i + 1]}`);
    }
    return pairs.length ? `M${pairs.join('L')}Z` : '';
}

function drawMask(found, colour) {
    const path = found.polygons ? found.polygons.map(closed).join('') : found.mask ? maskPath(found.mask) : '';
    return path ? [shape('path', {d: path, class: 'mask', fill: colour})] : [];
}

// COCO's compressed run lengths, column by column, as one column of a path for each run inside.
export function maskPath(mask) {
    const height = mask.size[0];
    const path = [];
    let at = 0;
    readRuns(mask.counts).forEach((run, number) => {
        for (let left = number % 2 ? run : 0, from = at; left > 0;) {
            const y = from % height;
            const length = Math.min(left, height - y);
            path.push(`M${Math.floor(from / height)} ${y}h1v${length}h-1z`);
            from += length;
            left -= length;
        }
        at += run;
    });
    return path.join('');
}

function readRuns(text) {
    const runs = [];
    let value = 0;
    let shift = 0;
    for (const character of text) {
        const digit = character.charCodeAt(0) - 48;
        value |= (digit & 31) << shift;
        shift += 5;
        if (!(digit & 32)) { // the last digit of a number; its highest bit is the sign
            value -= (digit & 16) << (shift - 4);
            runs.push(value + (runs.length > 2 ? runs[runs.length - 2] : 0));
            value = 0;
            shift = 0;
        }
    }
    return runs;
}

// A point is a stroke without length: round, and of one size however large the picture is shown.
function drawPoints(points, colour) {
    const seen = (point) => point && point[2] >= LEAST_POINT;
    const bones = points.length === 17 ? BONES.filter(([a, b]) => seen(points[a]) && seen(points[b])) : [];
    const lines = bones.map(([a, b]) => `M${points[a][0]} ${points[a][1]}L${points[b][0]} ${points[b][1]}`);
    return [
        ...lines.flatMap((d) => [shape('path', {d, class: 'halo'}), shape('path', {d, class: 'edge', stroke: colour})]),
        ...points.filter(seen).flatMap(([x, y, score]) => [
            shape('path', {d: `M${x} ${y}h0`, class: 'point around'}),
            shape('path', {d: `M${x} ${y}h0`, class: 'point', stroke: colour}, shape('title', {}, score.toFixed(3))),
        ]),
    ];
}

// Red speaks for the class, blue against it; the strongest cell is opaque. Each cell is a rectangle, so edges stay sharp.
export function drawHeatMap(answer) {
    const {height, width, box: [x1, y1, x2, y2], values} = answer.heat_map;
    const most = Math.max(...values.flat().map(Math.abs)) || 1;
    const cell = [(x2 - x1) / width, (y2 - y1) / height];
    return values.flatMap((row, r) => row.map((value, c) => shape('rect', {
        x: x1 + c * cell[0], y: y1 + r * cell[1], width: cell[0], height: cell[1], 'shape-rendering': 'crispEdges',
        fill: value > 0 ? '#d7191c' : '#1f6fc4', 'fill-opacity': (0.75 * Math.abs(value) / most).toFixed(3),
    }, shape('title', {}, value.toFixed(4)))));
}
