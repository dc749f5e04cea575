// The picture in its frame, as large as there is room; larger by buttons, by keys, or by Ctrl and the wheel.

const LEAST_SIDE = 640; // pixels on the page of a picture's longer side, where there is room
const LEAST_SHORT = 120; // of the shorter side of a long picture, which is scrolled
const TALLEST_VH = 72;
const COARSE = 3; // from this size on, a pixel of the picture is a square
const STEP = 1.5;
const WIDEST = 20000; // pixels on the page
const KEYS = {'+': STEP, '=': STEP, '-': 1 / STEP, 0: 0};

export class View {
    // find: of an element in the panel. resized: called when the picture has another size on the page.
    constructor(find, resized) {
        [this.stage, this.frame, this.canvas, this.image] = ['.stage', '.view', '.canvas', '.shown'].map(find);
        find('.in').addEventListener('click', () => this.zoom(STEP));
        find('.out').addEventListener('click', () => this.zoom(1 / STEP));
        find('.fit').addEventListener('click', () => this.zoom(0));
        this.frame.addEventListener('keydown', (event) => {
            if (event.key in KEYS && !event.ctrlKey && !event.metaKey) {
                event.preventDefault();
                this.zoom(KEYS[event.key]);
            }
        });
        this.frame.addEventListener('wheel', (event) => {
            if (event.ctrlKey || event.metaKey) {
                event.preventDefault();
                this.zoom(STEP ** (-event.deltaY / 100), event);
            }
        }, {passive: false});
        this.frame.addEventListener('pointermove', (event) => {
            if (event.buttons === 1 && event.pointerType === 'mouse') {
                this.frame.scrollBy(-event.movementX, -event.movementY);
            }
        });
        this.image.draggable = false;
        new ResizeObserver(() => {
            this.canvas.classList.toggle('coarse', this.canvas.offsetWidth >= COARSE * this.width);
            resized();
        }).observe(this.canvas);
    }

    // Shows a picture; of the same one the zoom stays.
    show(url, name, width, height) {
        this.stage.hidden = !width;
        if (!width || (this.image.src === url && this.width === width)) {
            return;
        }
        [this.image.src, this.image.alt, this.width] = [url, name, width];
        const [short, long] = [width, height].sort((a, b) => a - b);
        const most = Math.max(1, LEAST_SIDE / long);
        const least = long > 4 * short ? Math.min(most, LEAST_SHORT / short) : 0;
        this.fit = `max(${Math.round(width * least)}px, min(100%, ${Math.round(width * most)}px, ${(TALLEST_VH * width / height).toFixed(3)}vh))`;
        this.zoom(0);
    }

    // Makes the picture larger by a factor; 0: as it was first. at: the point that stays where it is, else the middle.
    zoom(factor, at) {
        const frame = this.frame.getBoundingClientRect();
        const {clientX, clientY} = at || {clientX: frame.left + frame.width / 2, clientY: frame.top + frame.height / 2};
        const before = this.canvas.getBoundingClientRect();
        this.scale = factor ? Math.max(1, Math.min(this.scale * factor, this.scale * WIDEST / before.width)) : 1;
        this.canvas.style.width = `calc(${this.fit} * ${this.scale})`;
        const after = this.canvas.getBoundingClientRect();
        this.frame.scrollBy(after.left - clientX + (clientX - before.left) * after.width / before.width,
            after.top - clientY + (clientY - before.top) * after.height / before.height);
    }
}
