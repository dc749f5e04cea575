// The page: who asks, which picture, and one panel or two.

import {readModels, readServer, useKey} from './asking.js';
import {Panel} from './panel.js';
import {offerPictures} from './picture.js';

const find = (id) => document.getElementById(id);
const page = {models: [], panels: [], picture: null};

async function start() {
    find('key-form').addEventListener('submit', (event) => {
        event.preventDefault();
        useKey(find('key').value);
        showModels();
    });
    find('compare').addEventListener('change', showPanels);
    find('again').addEventListener('click', showModels);
    offerPictures(takePicture, (words) => {
        find('picture-name').textContent = words;
    });
    await showModels();
}

// Asks the server which models it has; where it wants a key, only when there is one.
async function showModels() {
    page.models = [];
    try {
        const server = await readServer();
        find('key-form').hidden = !server.needs_key;
        if (!server.needs_key || find('key').value.trim()) {
            page.models = (await readModels()).models;
            tell(page.models.length ? '' : 'The server has no models. Register one with scripts/manage_models.py register.');
        } else {
            tell('');
            find('key').focus();
        }
    } catch (error) {
        tell(error.message);
    }
    page.panels = [];
    find('panels').replaceChildren();
    showPanels();
}

// The first panel begins with a default version, the second with the model or version after that of the first.
function showPanels() {
    const wanted = page.models.length ? (find('compare').checked ? 2 : 1) : 0;
    while (page.panels.length > wanted) {
        page.panels.pop().root.remove();
    }
    while (page.panels.length < wanted) {
        const next = page.panels.length ? page.panels[0].find('.model').selectedIndex + 1 : undefined;
        const panel = new Panel(find('panel'), page.models, next);
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
    document.querySelector('main').classList.remove('empty');
    const size = picture.width ? `${picture.width} × ${picture.height}` : 'this browser cannot show it';
    find('picture-name').textContent = `${picture.name}, ${size}, ${Math.ceil(picture.blob.size / 1000)} kB`;
    page.panels.forEach((panel) => panel.take(picture));
}

function tell(problem) {
    find('problem').firstElementChild.textContent = problem;
    find('problem').hidden = !problem;
}

start();
