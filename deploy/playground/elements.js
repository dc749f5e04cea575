// Elements made without HTML text, so that nothing of an answer is ever read as HTML.

const SVG = 'http://www.w3.org/2000/svg';

export function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => value !== undefined && value !== false && made.setAttribute(key, value === true ? '' : value));
    made.append(...children);
    return made;
}

export function shape(name, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    made.append(...children);
    return made;
}

// Light enough for dark letters, seen on dark pictures and, with a dark halo, on light ones; told apart by most colour-blind eyes.
const COLOURS = ['#56b4e9', '#ffa62b', '#4fd69c', '#f7e733', '#ff8fc7', '#ff7256', '#b9a3ff', '#a6e22e', '#dfe5ea', '#35d6d6'];

export function colourOf(number) {
    return COLOURS[number % COLOURS.length];
}
