// Requests to the server that the page came from. The key stays in this module's memory.

const BASE = new URL('.', document.baseURI).pathname;
export const server = {needs_key: false, reports: false, address: location.origin + BASE.replace(/\/$/, '')};
let key = '';

export function useKey(text) {
    key = text.trim();
}

export async function readServer() {
    const about = await (await reach(`${BASE}playground/server.json`)).json();
    return Object.assign(server, about);
}

// Returns the list of models, or the card of one. Throws an Error whose message is for the user.
export async function readModels(...path) {
    const response = await reach(`${BASE}playground/models${path.map((part) => `/${encodeURIComponent(part)}`).join('')}`, {headers: authorization()});
    const document = await readJson(response);
    if (!response.ok) {
        throw Object.assign(new Error(tellError(document, response)), {status: response.status});
    }
    return document;
}

// Returns {status, document, blob, headers, ms} of a prediction or explanation. Errors of the server are documents, too.
export async function ask(request, picture, signal, accept = 'application/json') {
    const headers = {...authorization(), 'Content-Type': 'application/octet-stream', Accept: accept};
    const options = writeOptions(request.options);
    if (options) {
        headers['X-Inference-Options'] = toBytes(options);
    }
    const began = performance.now();
    const response = await reach(BASE + pathOf(request).slice(1), {method: 'POST', body: picture, headers, signal});
    const blob = await response.blob();
    const ms = performance.now() - began;
    const isJson = (response.headers.get('Content-Type') || '').includes('json');
    return {status: response.status, statusText: response.statusText, headers: response.headers, blob, ms,
        document: isJson ? parse(await blob.text()) : null};
}

export function pathOf(request) {
    const route = request.explains ? 'explanations' : 'predictions';
    return ['', route, request.model, ...(request.version ? [request.version] : [])].map(encodeURIComponent).join('/');
}

export function writeOptions(options) {
    return Object.entries(options).map(([name, value]) => `${name}=${value}`).join('; ');
}

export function tellError(document, response) {
    if (document && document.message) {
        return `${document.code || response.status} ${document.type || ''}: ${document.message}`;
    }
    return `${response.status} ${response.statusText || ''}: the server gave no reason`;
}

// Browsers say "Failed to fetch", whatever it was.
async function reach(...request) {
    try {
        return await fetch(...request);
    } catch (error) {
        throw error.name === 'AbortError' ? error : new Error('The server does not answer. Does it still run, and is the picture still there?');
    }
}

// A header has bytes; fetch takes each character for one.
function toBytes(text) {
    return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
}

function authorization() {
    return key ? {Authorization: `Bearer ${key}`} : {};
}

async function readJson(response) {
    return parse(await response.text());
}

function parse(text) {
    try {
        return JSON.parse(text);
    } catch (error) {
        return null;
    }
}
