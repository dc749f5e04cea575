// The OpenAPI document as a page: each route with its parameters, bodies and answers.

import {element} from './elements.js';

const METHODS = ['get', 'put', 'post', 'delete', 'head', 'options', 'patch'];
const DEEPEST = 8; // of schemas within schemas
let description;

async function start() {
    description = await (await fetch('playground/openapi.json')).json();
    document.getElementById('about').replaceChildren(...showProse(description.info.description));
    document.getElementById('routes').replaceChildren(...(description.tags || [{}]).flatMap(showTag));
}

function showTag(tag) {
    const routes = Object.entries(description.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]
        && (item[method].tags || []).includes(tag.name)).map((method) => showRoute(path, method, item[method])));
    return routes.length ? [element('h2', {}, tag.name), element('p', {}, tag.description || ''), ...routes] : [];
}

function showRoute(path, method, operation) {
    const body = resolve(operation.requestBody);
    return element('details', {class: 'route sheet', id: operation.operationId},
        element('summary', {}, element('b', {class: 'method'}, method), ` ${path}`, element('span', {}, operation.summary || '')),
        ...showProse(operation.description),
        ...showParameters((operation.parameters || []).map(resolve)),
        ...(body ? [element('h3', {}, 'Body'), ...showProse(body.description), ...showContent(body.content)] : []),
        element('h3', {}, 'Answers'),
        ...Object.entries(operation.responses).map(([status, answer]) => showAnswer(status, resolve(answer))));
}

function showParameters(parameters) {
    if (!parameters.length) {
        return [];
    }
    const rows = parameters.map((parameter) => element('tr', {}, element('th', {scope: 'row'}, parameter.name),
        element('td', {}, `${parameter.in}${parameter.required ? ', required' : ''}`), element('td', {}, ...showProse(parameter.description))));
    return [element('h3', {}, 'Parameters'), element('table', {}, ...rows)];
}

function showAnswer(status, answer) {
    return element('details', {}, element('summary', {}, `${status}`, element('span', {}, ...showCode(firstSentence(answer.description || '')))),
        ...showProse(answer.description), ...showContent(answer.content || {}));
}

function showContent(content) {
    return Object.entries(content).flatMap(([type, media]) => [
        element('p', {}, element('code', {}, type)),
        ...examplesOf(media).map((example) => element('pre', {tabindex: '0', 'aria-label': 'Example'}, JSON.stringify(example, null, 1))),
        ...(media.schema ? [element('details', {}, element('summary', {}, 'Schema'),
            element('pre', {tabindex: '0', 'aria-label': 'Schema'}, JSON.stringify(expand(media.schema, DEEPEST), null, 1)))] : []),
    ]);
}

function examplesOf(media) {
    const named = Object.values(media.examples || {}).map((example) => resolve(example).value);
    return media.example === undefined ? named : [media.example, ...named];
}

// The little Markdown that the description has: paragraphs, tables and `code`.
function showProse(text) {
    return (text || '').trim().split(/\n\s*\n/).filter(Boolean).map((block) => {
        if (!block.startsWith('|')) {
            return element('p', {}, ...showCode(block));
        }
        const rows = block.split('\n').filter((line) => !/^[|\s-]+$/.test(line)).map((line) => line.split('|').slice(1, -1));
        return element('table', {}, ...rows.map((cells, i) => element('tr', {}, ...cells.map((cell) =>
            element(i ? 'td' : 'th', {}, ...showCode(cell.trim()))))));
    });
}

function firstSentence(text) {
    return text.replace(/\s+/g, ' ').split(/(?<=[.:]) /)[0];
}

function showCode(text) {
    return text.split('`').map((part, i) => i % 2 ? element('code', {}, part) : part);
}

// What `{$ref: "#/components/..."}` stands for.
function resolve(value) {
    if (!value || !value.$ref) {
        return value;
    }
    return resolve(value.$ref.slice(2).split('/').reduce((at, name) => at[name.replace(/~1/g, '/').replace(/~0/g, '~')], description));
}

function expand(value, depth) {
    const found = resolve(value);
    if (depth === 0 || found === null || typeof found !== 'object') {
        return depth === 0 && value.$ref ? value.$ref : found;
    }
    if (Array.isArray(found)) {
        return found.map((entry) => expand(entry, depth));
    }
    return Object.fromEntries(Object.entries(found).map(([name, entry]) => [name, expand(entry, depth - 1)]));
}

start().catch((error) => {
    document.getElementById('problem').textContent = `The description cannot be read: ${error.message}`;
    document.getElementById('problem').hidden = false;
});
