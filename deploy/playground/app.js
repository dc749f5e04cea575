// The page: who asks, which picture, and one panel or two.

import {readModels, readServer, useKey} from './asking.js';
import {Panel} from './panel.js';
import {offerPictures} from './picture.js';

const find = (id) => document.getElementById(id);
const page = {models: [], panels: [], picture: null};

async function start() {
    const server = await readServer();
    find('key-form').hidden = !server.needs_key;
    find('key-form').addEventListener('submit', (event) => {
        event.preventDefault();
        useKey(find('key').value);
        showModels();
    });
    find('compare').addEventListener('change', showPanels);
    offerPictures(takePicture);
    if (server.needs_key) {
        tell('Give the key of a client of this server.');
    } else {
        await showModels();
    }
}

async function showModels() {
    try {
        page.models = (await readModels()).models;
        tell(page.models.length ? '' : 'The server has no models.');
    } catch (error) {
        page.models = [];
        tell(error.message);
    }
    page.panels = [];
    find('panels').replaceChildren();
    if (page.models.length) {
        showPanels();
    }
}

// A second panel begins with the next model or version.
function showPanels() {
    const wanted = page.models.length ? (find('compare').checked ? 2 : 1) : 0;
    while (page.panels.length > wanted) {
        page.panels.pop().root.remove();
    }
    while (page.panels.length < wanted) {
        const panel = new Panel(find('panel'), page.models, page.panels.length);
        panel.picture = page.picture;
        page.panels.push(panel);
        find('panels').append(panel.root);
        panel.takeModel();
    }
    find('panels').classList.toggle('two', wanted === 2);
}

function takePicture(picture) {
    if (page.picture) {
        URL.revokeObjectURL(page.picture.url);
    }
    page.picture = picture;
    const size = picture.width ? `${picture.width} × ${picture.height}` : 'this browser cannot show it';
    find('picture-name').textContent = `${picture.name}, ${size}, ${Math.ceil(picture.blob.size / 1000)} kB`;
    page.panels.forEach((panel) => panel.take(picture));
}

function tell(problem) {
    find('problem').textContent = problem;
    find('problem').hidden = !problem;
}

start().catch((error) => tell(`The page cannot reach its server: ${error.message}`));
