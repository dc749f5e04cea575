// What a model says of itself: its facts, the evidence that it was built with, its report.

import {element} from './elements.js';

const MOST_LABELS = 30;

// One line beside the model's name.
export function listFacts(card) {
    const classes = card.num_classes ? `${card.num_classes} classes` : '';
    return [card.task, `${card.backend} ${card.precision}`, card.device, classes].filter(Boolean).join(' · ');
}

// report: the address of the build's report, empty where there is none.
export function showCard(place, card, report) {
    const evidence = card.verification || {};
    place.replaceChildren(
        ...(report ? [element('p', {}, element('a', {href: report, target: '_blank'}, 'Report of this model'))] : []),
        makeTable([['task', card.task], ['version', card.version], ['runs by', `${card.backend} ${card.precision} on ${card.device}`],
            ['labels', writeLabels(card.labels || [])], ['picture', describePixels(card.preprocessing || {})],
            ['formats', ((card.limits || {}).formats || []).join(', ')], ['images per second', writeSpeed(evidence.timing || {})]]),
        ...showEvidence(evidence),
        element('details', {}, element('summary', {}, 'All of the card'),
            element('pre', {tabindex: '0', 'aria-label': 'All of the card'}, JSON.stringify(card, null, 1))));
}

function showEvidence({passed, reference, images, measured = {}, bounds = {}, accuracy = {}}) {
    if (!reference) {
        return [];
    }
    const count = images ? ` on ${images.count} images` : '';
    const measures = Object.entries(measured).map(([name, value]) => [name, writeNumber(value), writeBound(bounds, name)]);
    const accurate = Object.entries(accuracy.candidate || {}).map(([name, value]) =>
        [name, writeNumber(value), accuracy.reference ? `${reference}: ${writeNumber(accuracy.reference[name])}` : '']);
    return [
        element('h3', {}, `${passed ? 'Verified' : 'Not verified'} against ${reference}${count}`), makeTable(measures),
        ...(accurate.length ? [element('h3', {}, 'Accuracy'), makeTable(accurate)] : []),
    ];
}

function makeTable(rows) {
    return element('table', {}, ...rows.filter((row) => row[1]).map(([name, ...cells]) =>
        element('tr', {}, element('th', {scope: 'row'}, name), ...cells.map((cell) => element('td', {}, cell)))));
}

function writeLabels(labels) {
    return labels.slice(0, MOST_LABELS).join(', ') + (labels.length > MOST_LABELS ? `, … (${labels.length} in all)` : '');
}

function describePixels({resize, crop, interpolation, color_order}) {
    const size = (value) => [].concat(value || []).join(' × ');
    return [resize && `${resize.mode} ${size(resize.size)}`, crop && `crop ${size(crop)}`, interpolation, color_order].filter(Boolean).join(', ');
}

function writeSpeed({images_per_s: speeds = {}, speedup}) {
    const each = Object.entries(speeds).map(([batch, speed]) => `${Math.round(speed)} in batches of ${batch}`);
    return [...each, speedup && each.length ? `${writeNumber(speedup)} times eager` : ''].filter(Boolean).join(', ');
}

function writeBound(bounds, name) {
    const [least, most] = [bounds[`min_${name}`], bounds[`max_${name}`]];
    return least !== undefined ? `at least ${least}` : most !== undefined ? `at most ${most}` : '';
}

function writeNumber(value) {
    return typeof value === 'number' ? String(Number(value.toPrecision(4))) : String(value ?? '');
}
