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

// Dark enough for white letters, and told apart by colour-blind eyes as far as ten colours can be.
const COLOURS = ['#0b6bb8', '#b3400b', '#167a3c', '#a3248f', '#7a5a00', '#5b46c4', '#b01c3a', '#0a7a7f', '#5f6a00', '#455a75'];

export function colourOf(number) {
    return COLOURS[number % COLOURS.length];
}
