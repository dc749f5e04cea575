// Labels beside their boxes, so that none covers another: the first free place of a few, best detections first.

import {toCorners} from './drawing.js';
import {element} from './elements.js';
import {colourOfDetection} from './results.js';

const GAP = 1;

// Fills `layer` with a label for each detection; one that finds no place is shown only when it is pointed at.
export function placeLabels(layer, answer) {
    layer.replaceChildren(...answer.detections.map((found, number) => {
        const label = element('span', {}, `${found.label} ${found.score.toFixed(2)}`);
        label.style.background = colourOfDetection(found, number);
        return label;
    }));
    const room = layer.getBoundingClientRect();
    const scale = [room.width / answer.image.width, room.height / answer.image.height];
    const sizes = [...layer.children].map((label) => [label.offsetWidth, label.offsetHeight]);
    const taken = [];
    [...layer.children].forEach((label, number) => {
        const corners = toCorners(answer.detections[number].box, answer.box_format || 'xyxy', answer.image);
        const box = corners.map((value, i) => value * scale[i % 2]);
        const places = listPlaces(box, sizes[number]).map((place) => keepInside(place, sizes[number], room));
        const free = places.find((place) => taken.every((other) => !overlaps(other, [...place, ...sizes[number]])));
        const [x, y] = free || places[0];
        label.style.left = `${x}px`;
        label.style.top = `${y}px`;
        label.classList.toggle('out', !free);
        if (free) {
            taken.push([x, y, ...sizes[number]]);
        }
    });
}

// Above, below, inside, and beside the box.
function listPlaces([x1, y1, x2, y2], [width, height]) {
    return [[x1, y1 - height], [x2 - width, y1 - height], [x1, y2], [x2 - width, y2], [x1, y1], [x2, y1], [x1 - width, y1],
        [x2, y2 - height], [x1 - width, y2 - height], [x1, y1 - 2 * height - GAP], [x1, y2 + height + GAP]];
}

function keepInside([x, y], [width, height], room) {
    return [Math.max(0, Math.min(x, room.width - width)), Math.max(0, Math.min(y, room.height - height))];
}

function overlaps([ax, ay, aw, ah], [bx, by, bw, bh]) {
    return ax < bx + bw + GAP && bx < ax + aw + GAP && ay < by + bh && by < ay + ah;
}
