// One model at work on the picture: asked anew when the picture, the model or an option changes.

import {ask, readModels, server, tellError} from './asking.js';
import {listFacts, showCard} from './card.js';
import {drawDetections, drawHeatMap} from './drawing.js';
import {element} from './elements.js';
import {placeLabels} from './labels.js';
import {readOptions, showOptions} from './options.js';
import {countResults, listResults, showTimings} from './results.js';
import {LANGUAGES} from './snippets.js';
import {View} from './view.js';

const PAUSE_MS = 250; // while somebody types
const COPIED_MS = 3000;

export class Panel {
    constructor(template, models, chosen) {
        this.root = template.content.firstElementChild.cloneNode(true);
        this.find = (selector) => this.root.querySelector(selector);
        this.explains = false;
        this.language = 'curl';
        this.find('.model').replaceChildren(...models.flatMap((model) => model.versions.map((version) => element('option',
            {value: JSON.stringify([model.name, version]), 'data-default': version === model.default},
            model.versions.length > 1 ? `${model.name} ${version}` : model.name))));
        const first = Math.max(0, [...this.find('.model').options].findIndex((option) => option.hasAttribute('data-default')));
        this.find('.model').selectedIndex = chosen === undefined ? first : chosen % this.find('.model').length;
        this.find('.model').addEventListener('change', () => this.takeModel());
        this.find('.see-prediction').addEventListener('click', () => this.see(false));
        this.find('.see-explanation').addEventListener('click', () => this.see(true));
        this.find('.retry').addEventListener('click', () => this.run());
        this.find('.copy').addEventListener('click', () => this.copy());
        this.find('.languages').replaceChildren(...Object.keys(LANGUAGES).map((name) => this.offerLanguage(name)));
        this.view = new View(this.find, () => this.answer && this.answer.detections && this.overlaid && placeLabels(this.find('.labels'), this.answer));
    }

    // Reads the card of the chosen model, for its options, and asks.
    async takeModel() {
        const option = this.find('.model').selectedOptions[0];
        const [name, version] = JSON.parse(option.value);
        const request = this.request = {model: name, version: option.hasAttribute('data-default') ? '' : version};
        this.card = null;
        this.clear();
        showOptions(this.find('.options-box'), {}); // not those of the model before
        this.root.setAttribute('aria-label', `Model ${name} ${version}`);
        this.find('.facts').textContent = '';
        try {
            const card = await readModels(name, version);
            if (this.request !== request) {
                return; // another was chosen meanwhile
            }
            this.card = card;
            this.find('.facts').textContent = listFacts(card);
            showCard(this.find('.card'), card, server.reports && `playground/reports/${encodeURIComponent(name)}/${encodeURIComponent(version)}`);
        } catch (error) {
            if (this.request !== request) {
                return;
            }
            this.find('.card').replaceChildren(error.message);
        }
        this.find('.views').hidden = !(this.card && this.card.explanations);
        this.see(this.explains && !this.find('.views').hidden);
    }

    see(explains) {
        this.explains = explains;
        this.find('.see-prediction').setAttribute('aria-pressed', String(!explains));
        this.find('.see-explanation').setAttribute('aria-pressed', String(explains));
        const described = this.card ? (explains ? this.card.explanations : this.card.options) : {};
        showOptions(this.find('.options-box'), described, () => this.askSoon());
        this.clear();
        this.run();
    }

    take(picture) {
        this.picture = picture;
        this.clear();
        this.run();
    }

    askSoon() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.run(), PAUSE_MS);
    }

    // Asks; what was found before stays, dimmed, until there is an answer.
    async run() {
        clearTimeout(this.timer);
        if (this.asked) {
            this.asked.abort();
        }
        if (!this.picture || !this.request) {
            return;
        }
        const asked = this.asked = new AbortController();
        const request = {...this.request, explains: this.explains, options: readOptions(this.find('.options')), file: this.picture.name};
        this.showCode(request);
        this.say('Asking …');
        this.root.setAttribute('aria-busy', 'true');
        try {
            const reply = await ask(request, this.picture.blob, asked.signal);
            const drawn = reply.status === 200 && reply.document && !this.fits(reply.document)
                ? await ask(request, this.picture.blob, asked.signal, 'image/png, application/json') : null;
            if (!asked.signal.aborted) {
                await this.show(reply, drawn);
            }
        } catch (error) {
            if (!asked.signal.aborted) {
                this.clear();
                this.fail(error.message);
            }
        }
        if (!asked.signal.aborted) {
            this.root.removeAttribute('aria-busy');
        }
    }

    // drawn: the server's own drawing of the answer, where this browser does not show the pixels that the model saw.
    async show(reply, drawn) {
        this.clear();
        this.find('.answer').textContent = reply.document ? JSON.stringify(reply.document, null, 1) : '';
        showTimings(this.find('.timing'), reply.headers.get('Server-Timing'), reply.ms);
        if (reply.status !== 200 || !reply.document) {
            this.fail(tellError(reply.document, reply));
            return;
        }
        this.answer = reply.document;
        this.overlaid = !drawn;
        if (drawn && drawn.status === 200 && !drawn.document) {
            await this.showDrawn(drawn.blob);
        }
        this.draw(this.answer);
        this.say(countResults(this.answer));
        const backend = ['X-Backend', 'X-Precision'].map((name) => reply.headers.get(name)).filter(Boolean).join(' ');
        const note = drawn ? 'drawn by the server, as this browser shows the picture otherwise or not at all' : '';
        this.find('.about').textContent = [`${reply.ms.toFixed(0)} ms`, backend, note].filter(Boolean).join(' · ');
    }

    fits(answer) {
        const {width, height} = this.picture;
        return width > 0 && (!answer.image || (answer.image.width === width && answer.image.height === height));
    }

    async showDrawn(blob) {
        this.drawn = URL.createObjectURL(blob);
        const image = new Image();
        image.src = this.drawn;
        await image.decode();
        this.view.show(this.drawn, this.picture.name, image.naturalWidth, image.naturalHeight);
    }

    draw(answer) {
        const items = listResults(answer, this.overlaid);
        this.find('.results').replaceChildren(...items);
        if (!this.overlaid) {
            return;
        }
        const overlay = this.find('.overlay');
        if (answer.image) {
            overlay.setAttribute('viewBox', `0 0 ${answer.image.width} ${answer.image.height}`);
        }
        if (answer.heat_map) {
            overlay.replaceChildren(...drawHeatMap(answer));
            this.find('.canvas').classList.add('gray');
        }
        if (answer.detections) {
            const shapes = drawDetections(answer);
            overlay.replaceChildren(...shapes.slice().reverse()); // the best on top
            placeLabels(this.find('.labels'), answer);
            this.link(shapes, items.map((item) => item.firstElementChild));
        }
    }

    // Pointing at a box or at its line in the list shows both.
    link(shapes, rows) {
        const labels = [...this.find('.labels').children];
        const point = (number) => {
            [shapes, rows, labels].forEach((list) => list.forEach((one, i) => one.classList.toggle('on', i === number)));
            this.find('.canvas').classList.toggle('chosen', number >= 0);
        };
        shapes.forEach((one, number) => {
            one.addEventListener('pointerenter', () => point(number));
            one.addEventListener('pointerleave', () => point(-1));
            one.addEventListener('click', () => rows[number].focus());
        });
        rows.forEach((one, number) => {
            one.addEventListener('pointerenter', () => point(number));
            one.addEventListener('focus', () => point(number));
            one.addEventListener('pointerleave', () => point(-1));
            one.addEventListener('blur', () => point(-1));
            one.addEventListener('click', () => shapes[number].scrollIntoView({block: 'nearest', inline: 'nearest'}));
        });
    }

    // Shows the picture alone, without what was found before.
    clear() {
        this.answer = null;
        this.find('.error').hidden = true;
        this.find('.timing').hidden = true;
        ['.overlay', '.labels', '.results', '.answer', '.about'].forEach((name) => this.find(name).replaceChildren());
        this.find('.canvas').classList.remove('gray', 'chosen');
        if (this.picture) {
            const {url, width, height, name} = this.picture;
            this.view.show(url, name, width, height);
        }
        if (this.drawn) {
            URL.revokeObjectURL(this.drawn);
            this.drawn = '';
        }
    }

    fail(message) {
        this.say('No answer.');
        this.find('.error').firstElementChild.textContent = message;
        this.find('.error').hidden = false;
    }

    say(text) {
        this.find('.status').textContent = text;
    }

    offerLanguage(name) {
        const button = element('button', {type: 'button', 'aria-pressed': String(name === this.language)}, name);
        button.addEventListener('click', () => {
            this.language = name;
            [...this.find('.languages').children].forEach((other) => other.setAttribute('aria-pressed', String(other === button)));
            this.showCode(this.written);
        });
        return button;
    }

    showCode(request) {
        this.written = request;
        this.find('.code').textContent = request ? LANGUAGES[this.language](request) : '';
    }

    async copy() {
        try {
            await navigator.clipboard.writeText(this.find('.code').textContent);
            this.find('.copied').textContent = 'Copied.';
        } catch (error) { // the browser does not let a page
            getSelection().selectAllChildren(this.find('.code'));
            this.find('.copied').textContent = 'Selected: press Ctrl+C.';
        }
        setTimeout(() => this.find('.copied').replaceChildren(), COPIED_MS);
    }
}
