// One model at work on the picture: asked anew when the picture, the model or an option changes.

import {ask, readModels, tellError} from './asking.js';
import {drawDetections, drawHeatMap} from './drawing.js';
import {element} from './elements.js';
import {placeLabels} from './labels.js';
import {readOptions, showOptions} from './options.js';
import {countResults, listResults, showCard, showTimings} from './results.js';
import {LANGUAGES} from './snippets.js';

const PAUSE_MS = 250; // while somebody types
const LEAST_SIDE = 640; // pixels on the page of a picture's longer side, where there is room
const COARSE = 200; // of a smaller picture, its pixels are shown as they are

export class Panel {
    constructor(template, models, chosen) {
        this.root = template.content.firstElementChild.cloneNode(true);
        this.find = (selector) => this.root.querySelector(selector);
        this.explains = false;
        this.language = 'curl';
        this.find('.model').replaceChildren(...models.flatMap((model) => model.versions.map((version) => element('option',
            {value: JSON.stringify([model.name, version]), 'data-default': version === model.default, 'data-model': model.name},
            model.versions.length > 1 ? `${model.name} ${version}` : model.name))));
        this.find('.model').selectedIndex = Math.min(chosen, this.find('.model').length - 1);
        this.find('.model').addEventListener('change', () => this.takeModel());
        this.find('.see-prediction').addEventListener('click', () => this.see(false));
        this.find('.see-explanation').addEventListener('click', () => this.see(true));
        this.find('.copy').addEventListener('click', () => this.copy());
        this.find('.tabs').replaceChildren(...Object.keys(LANGUAGES).map((name) => this.makeTab(name)));
        new ResizeObserver(() => this.answer && this.answer.detections && this.overlaid && placeLabels(this.find('.labels'), this.answer))
            .observe(this.find('.shown'));
    }

    // Reads the card of the chosen model, for its options, and asks.
    async takeModel() {
        const option = this.find('.model').selectedOptions[0];
        if (!option) {
            return;
        }
        const [name, version] = JSON.parse(option.value);
        this.request = {model: name, version: option.hasAttribute('data-default') ? '' : version};
        this.card = null;
        this.find('.options').replaceChildren(); // those of the model before
        try {
            const card = await readModels(name, version);
            if (this.request.model !== name) {
                return; // another was chosen meanwhile
            }
            this.card = card;
            showCard(this.find('.card'), card);
        } catch (error) {
            this.find('.card').replaceChildren(error.message);
        }
        this.find('.see-explanation').hidden = !(this.card && this.card.explanations);
        this.see(this.explains && !this.find('.see-explanation').hidden);
    }

    see(explains) {
        this.explains = explains;
        this.find('.see-prediction').setAttribute('aria-pressed', String(!explains));
        this.find('.see-explanation').setAttribute('aria-pressed', String(explains));
        const described = this.card ? (explains ? this.card.explanations : this.card.options) : {};
        showOptions(this.find('.options'), described, () => this.askSoon());
        this.run();
    }

    take(picture) {
        this.picture = picture;
        this.run();
    }

    askSoon() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.run(), PAUSE_MS);
    }

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
            if (!asked.signal.aborted) {
                await this.show(request, reply, asked.signal);
            }
        } catch (error) {
            if (!asked.signal.aborted) {
                this.clear();
                this.fail(`The server cannot be reached: ${error.message}`);
            }
        }
        if (!asked.signal.aborted) {
            this.root.removeAttribute('aria-busy');
        }
    }

    async show(request, reply, signal) {
        this.clear();
        this.find('.answer').textContent = JSON.stringify(reply.document, null, 1);
        showTimings(this.find('.timing'), reply.headers.get('Server-Timing'), reply.ms);
        if (reply.status !== 200 || !reply.document) {
            this.fail(tellError(reply.document, reply));
            return;
        }
        const answer = this.answer = reply.document;
        this.overlaid = this.fits(answer);
        if (!this.overlaid) {
            await this.showDrawn(request, signal);
        }
        if (signal.aborted) {
            return;
        }
        this.draw(answer);
        const about = ['X-Backend', 'X-Precision'].map((name) => reply.headers.get(name)).filter(Boolean).join(' ');
        this.say([countResults(answer), about, `${reply.ms.toFixed(0)} ms`].filter(Boolean).join(' · '));
    }

    // Whether this browser shows the same pixels that the model saw.
    fits(answer) {
        const {width, height} = this.picture;
        return width > 0 && (!answer.image || (answer.image.width === width && answer.image.height === height));
    }

    // A format that this browser does not know, or turns otherwise: the server draws.
    async showDrawn(request, signal) {
        const reply = await ask(request, this.picture.blob, signal, 'image/png, application/json');
        if (!reply.document && reply.status === 200) {
            this.drawn = URL.createObjectURL(reply.blob);
            this.find('.shown').src = this.drawn;
            this.find('.view').hidden = false;
        }
    }

    draw(answer) {
        const items = listResults(answer);
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
            this.find('.view').classList.add('gray');
        }
        if (answer.detections) {
            const shapes = drawDetections(answer);
            overlay.replaceChildren(...shapes.slice().reverse()); // the best on top
            placeLabels(this.find('.labels'), answer);
            this.link(shapes, items.map((item) => item.firstElementChild));
        }
    }

    // Pointing at a box or at its line in the list shows both.
    link(shapes, buttons) {
        const point = (number) => {
            [shapes, buttons, [...this.find('.labels').children]].forEach((list) => list.forEach((one, i) => one.classList.toggle('on', i === number)));
            this.find('.overlay').classList.toggle('chosen', number >= 0);
            this.find('.labels').classList.toggle('chosen', number >= 0);
        };
        shapes.forEach((one, number) => {
            one.addEventListener('pointerenter', () => point(number));
            one.addEventListener('pointerleave', () => point(-1));
            one.addEventListener('click', () => buttons[number].focus());
        });
        buttons.forEach((one, number) => {
            one.addEventListener('pointerenter', () => point(number));
            one.addEventListener('focus', () => point(number));
            one.addEventListener('pointerleave', () => point(-1));
            one.addEventListener('blur', () => point(-1));
        });
    }

    // Shows the picture alone, without what was found before.
    clear() {
        this.answer = null;
        if (this.drawn) {
            URL.revokeObjectURL(this.drawn);
            this.drawn = '';
        }
        this.find('.error').hidden = true;
        this.find('.timing').hidden = true;
        this.find('.overlay').replaceChildren();
        this.find('.labels').replaceChildren();
        this.find('.results').replaceChildren();
        this.find('.view').classList.remove('gray');
        const {url, width, height, name} = this.picture;
        this.find('.view').hidden = width === 0;
        this.find('.view').classList.toggle('coarse', Math.max(width, height) < COARSE);
        const shown = this.find('.shown');
        shown.src = width ? url : '';
        shown.alt = name;
        const enlarged = Math.max(width, Math.round(width * LEAST_SIDE / Math.max(width, height)));
        shown.style.width = width ? `min(${enlarged}px, ${(72 * width / height).toFixed(2)}vh)` : '';
    }

    fail(message) {
        this.say('No answer.');
        this.find('.error').textContent = message;
        this.find('.error').hidden = false;
    }

    say(text) {
        this.find('.status').textContent = text;
    }

    makeTab(name) {
        const tab = element('button', {type: 'button', role: 'tab', 'aria-selected': String(name === this.language)}, name);
        tab.addEventListener('click', () => {
            this.language = name;
            [...this.find('.tabs').children].forEach((other) => other.setAttribute('aria-selected', String(other === tab)));
            this.showCode(this.written);
        });
        return tab;
    }

    showCode(request) {
        this.written = request;
        this.find('.code').textContent = request ? LANGUAGES[this.language](request) : 'Choose a picture first.';
    }

    async copy() {
        await navigator.clipboard.writeText(this.find('.code').textContent);
        this.say('Copied.');
    }
}
