// Answers as lists, bars and tables.

import {colourOf, element, shape} from './elements.js';

const FIRST = ['name', 'version', 'task', 'backend', 'precision', 'device', 'num_classes', 'labels']; // of a card

// Returns list items for the answer of any task; those of detections and classes hold a button each.
export function listResults(answer) {
    if (answer.detections) {
        return answer.detections.map((found) => makeRow(found, colourOf(found.class_id), false));
    }
    if (answer.classes) {
        return answer.classes.map((found) => makeRow(found, '', true));
    }
    if (answer.heat_map) {
        return [makeRow(answer, '', true)];
    }
    return answer.embedding ? [drawEmbedding(answer.embedding)] : [];
}

// One sentence for the eye and for a screen reader.
export function countResults(answer) {
    if (answer.detections) {
        return `${answer.detections.length} object${answer.detections.length === 1 ? '' : 's'}`;
    }
    if (answer.classes) {
        const [best] = answer.classes;
        return best ? `best class ${best.label}, ${best.score.toFixed(3)}` : 'no class above its threshold';
    }
    if (answer.heat_map) {
        return `what speaks for ${answer.label} (red) and against it (blue), by ${answer.method}`;
    }
    return answer.embedding ? `a vector of ${answer.embedding.length} numbers` : 'an answer of an unknown form';
}

function makeRow(found, colour, withBar) {
    const swatch = element('span', {class: 'swatch'});
    swatch.style.background = colour;
    const button = element('button', {type: 'button'}, swatch, element('span', {class: 'name'}, found.label),
        element('span', {class: 'score'}, found.score.toFixed(3)));
    if (withBar) {
        const bar = element('i');
        bar.style.width = `${100 * found.score}%`;
        button.append(element('span', {class: 'score-bar', 'aria-hidden': 'true'}, bar));
    }
    return element('li', {}, button);
}

function drawEmbedding(vector) {
    const most = Math.max(...vector.map(Math.abs)) || 1;
    const strip = shape('svg', {class: 'strip', viewBox: `0 0 ${vector.length} 2`, preserveAspectRatio: 'none', role: 'img',
        'aria-label': 'The numbers of the vector: red above zero, blue below'});
    strip.append(...vector.map((value, i) => shape('rect', {x: i, y: value > 0 ? 1 - value / most : 1, width: 1, height: Math.abs(value) / most,
        fill: value > 0 ? '#d7191c' : '#2b83ba'})));
    return element('li', {}, strip);
}

// `decode;dur=1.25, infer;dur=8.10` and the whole time of the request, in ms.
export function showTimings(place, header, ms) {
    const stages = (header || '').split(',').map((part) => /^\s*([\w-]+);dur=([\d.]+)/.exec(part)).filter(Boolean)
        .map((found) => [found[1], Number(found[2])]);
    place.hidden = !stages.length;
    const rest = ms - stages.reduce((sum, stage) => sum + stage[1], 0);
    const all = rest > 0 ? [...stages, ['network and queue', rest]] : stages;
    const total = all.reduce((sum, stage) => sum + stage[1], 0);
    const bar = place.querySelector('.stages');
    bar.setAttribute('aria-label', all.map(([name, time]) => `${name} ${time.toFixed(1)} ms`).join(', '));
    bar.replaceChildren(...all.map(([name, time], i) => {
        const part = element('i', {title: `${name} ${time.toFixed(1)} ms`});
        part.style.width = `${100 * time / total}%`;
        part.style.background = colourOf(i);
        return part;
    }));
    place.querySelector('.stage-list').replaceChildren(...all.map(([name, time], i) => {
        const mark = element('b');
        mark.style.background = colourOf(i);
        return element('li', {}, mark, `${name} ${time.toFixed(1)} ms`);
    }));
}

export function showCard(place, card) {
    const names = [...FIRST.filter((name) => name in card), ...Object.keys(card).filter((name) => !FIRST.includes(name)).sort()];
    place.replaceChildren(element('table', {}, ...names.map((name) =>
        element('tr', {}, element('th', {scope: 'row'}, name), element('td', {}, describe(card[name]))))));
}

function describe(value) {
    if (value === null || typeof value !== 'object') {
        return String(value);
    }
    if (Array.isArray(value) && value.every((entry) => typeof entry !== 'object')) {
        return value.slice(0, 100).join(', ') + (value.length > 100 ? `, ... (${value.length} in all)` : '');
    }
    return element('pre', {tabindex: '0'}, JSON.stringify(value, null, 1));
}
