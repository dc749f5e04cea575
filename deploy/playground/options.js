// A control for each option that the model's card describes, as JSON Schema has it.

import {element} from './elements.js';

const NAMED = {
    class_filter: 'labels or ids: cat, dog',
    class_thresholds: 'label:0.3, label:0.6',
    target_class: 'label or id; empty: the best',
};

// Fills the form of a box, and calls `changed` when a value changes.
export function showOptions(box, described, changed) {
    const form = box.querySelector('form');
    const reset = box.querySelector('.reset');
    form.replaceChildren(...Object.entries(described).map(([name, schema]) =>
        element('label', {}, element('code', {}, name), ' ', makeControl(name, schema))));
    const mark = () => {
        [...form.elements].forEach((control) => control.parentElement.classList.toggle('changed', isChanged(control)));
        reset.hidden = ![...form.elements].some(isChanged);
    };
    form.oninput = () => {
        mark();
        changed();
    };
    form.onsubmit = (event) => event.preventDefault();
    reset.onclick = () => {
        form.reset();
        form.querySelector('input, select').focus(); // the button goes
        form.oninput();
    };
    mark();
}

// Returns the options that differ from the model's own, as text: {top_k: '3'}.
export function readOptions(form) {
    return Object.fromEntries([...form.elements].filter(isChanged).map((control) => [control.name, valueOf(control)]));
}

function makeControl(name, schema) {
    const own = schema.default === undefined || schema.default === null ? '' : writeDefault(schema.default);
    if (schema.enum) {
        const choices = schema.enum.map((choice) => element('option', {selected: String(choice) === own}, String(choice)));
        return withOwn(element('select', {name}, ...choices), own || String(schema.enum[0]));
    }
    if (schema.type === 'boolean') {
        return withOwn(element('input', {name, type: 'checkbox', checked: own === 'true'}), own);
    }
    if (schema.type === 'integer' || schema.type === 'number') {
        const least = schema.minimum ?? schema.exclusiveMinimum;
        const step = schema.type === 'integer' ? 1 : 0.05;
        return withOwn(element('input', {name, type: 'number', min: least, max: schema.maximum, step, value: own}), own);
    }
    return withOwn(element('input', {name, type: 'text', value: own, placeholder: NAMED[name] || '', autocomplete: 'off'}), own);
}

function writeDefault(value) {
    if (Array.isArray(value)) {
        return value.join(', ');
    }
    return typeof value === 'object' ? Object.entries(value).map((pair) => pair.join(':')).join(', ') : String(value);
}

function withOwn(control, own) {
    control.dataset.own = own;
    return control;
}

function valueOf(control) {
    return control.type === 'checkbox' ? String(control.checked) : control.value.trim();
}

function isChanged(control) {
    const value = valueOf(control);
    return value !== control.dataset.own && (value !== '' || control.type === 'text');
}
