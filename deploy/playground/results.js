// Answers as lists and bars.

import {colourOf, element, shape} from './elements.js';

const STAGES = ['#3f86c6', '#d9822b', '#4a9d5f', '#b765ab', '#8b7fd6', '#a58a2c'];

// The colour of a detection: of its class, or where areas may overlap, its own.
export function colourOfDetection(found, number) {
    return colourOf(found.mask || found.polygons ? number : found.class_id);
}

// Returns list items for the answer of any task; those of detections hold a button each, where the page has drawn them.
export function listResults(answer, drawn) {
    if (answer.detections) {
        return answer.detections.map((found, number) => drawn ? makeRow('button', found, colourOfDetection(found, number)) : makeRow('div', found));
    }
    if (answer.classes) {
        return answer.classes.map((found) => makeRow('div', found));
    }
    if (answer.heat_map) {
        return [makeRow('div', answer), drawScale(answer)];
    }
    return answer.embedding ? [drawEmbedding(answer.embedding)] : [];
}

// One sentence for the eye and for a screen reader.
export function countResults(answer) {
    if (answer.detections) {
        const count = answer.detections.length;
        return count ? `${count} object${count === 1 ? '' : 's'}` : 'No object above the score threshold';
    }
    if (answer.classes) {
        const [best] = answer.classes;
        return best ? `Best class ${best.label}, ${best.score.toFixed(3)}` : 'No class above its threshold';
    }
    if (answer.heat_map) {
        return `What speaks for ${answer.label}, by ${answer.method}`;
    }
    return answer.embedding ? `A vector of ${answer.embedding.length} numbers` : 'An answer of an unknown form';
}

function makeRow(kind, found, colour) {
    const bar = element('i');
    bar.style.width = `${100 * found.score}%`;
    const row = element(kind, {class: 'row', type: kind === 'button' && 'button'}, element('span', {class: 'name'}, found.label), ' ',
        element('span', {class: 'bar-of-score', 'aria-hidden': 'true'}, bar), element('span', {class: 'score'}, found.score.toFixed(3)));
    if (colour) {
        const swatch = element('span', {class: 'swatch', 'aria-hidden': 'true'});
        swatch.style.background = colour;
        row.prepend(swatch);
    }
    return element('li', {}, row);
}

function drawScale(answer) {
    const most = Math.max(...answer.heat_map.values.flat().map(Math.abs)).toFixed(2);
    return element('li', {class: 'scale'}, element('span', {}, `−${most} against it`), element('i', {'aria-hidden': 'true'}),
        element('span', {}, `+${most} for it`));
}

function drawEmbedding(vector) {
    const most = Math.max(...vector.map(Math.abs)) || 1;
    const strip = shape('svg', {class: 'strip', viewBox: `0 0 ${vector.length} 2`, preserveAspectRatio: 'none', role: 'img',
        'aria-label': 'The numbers of the vector: red above zero, blue below'});
    strip.append(...vector.map((value, i) => shape('rect', {x: i, y: value > 0 ? 1 - value / most : 1, width: 1, height: Math.abs(value) / most,
        fill: value > 0 ? '#e5484d' : '#3b8fd9'})));
    return element('li', {}, strip);
}

// `decode;dur=1.25, infer;dur=8.10` and the whole time of the request, in ms.
export function showTimings(place, header, ms) {
    const stages = (header || '').split(',').map((part) => /^\s*([\w-]+);dur=([\d.]+)/.exec(part)).filter(Boolean)
        .map((found, i) => [found[1], Number(found[2]), STAGES[i % STAGES.length]]);
    place.hidden = !stages.length;
    const rest = Math.max(0, ms - stages.reduce((sum, stage) => sum + stage[1], 0));
    const all = [...stages, ['network and queue', rest, 'var(--line)']];
    const total = all.reduce((sum, stage) => sum + stage[1], 0);
    place.querySelector('.stages').replaceChildren(...all.map(([name, time, colour]) => {
        const part = paint(element('i', {title: `${name} ${time.toFixed(1)} ms`}), colour);
        part.style.width = `${100 * time / total}%`;
        return part;
    }));
    place.querySelector('.stage-list').replaceChildren(...all.map(([name, time, colour]) =>
        element('li', {}, paint(element('b'), colour), `${name} ${time.toFixed(1)} ms`)));
}

function paint(made, colour) {
    made.style.background = colour;
    return made;
}
