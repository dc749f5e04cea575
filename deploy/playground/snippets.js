// The request that the page has just sent, as a reader would write it.

import {pathOf, server, writeOptions} from './asking.js';

export const LANGUAGES = {curl: writeCurl, vision_client: writeClient, Python: writePython, JavaScript: writeJavaScript};

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/; // controls, and marks of direction
const UNSEEN_ALL = new RegExp(UNSEEN, 'g');
const TOKEN = '$(python scripts/manage_models.py token inference)';

function writeCurl(request) {
    const options = writeOptions(request.options);
    const exactly = /[[\]{}]/.test(request.file) ? '--globoff ' : ''; // curl would take the name for several
    return [
        server.needs_key ? 'KEY=...   # your client key' : `KEY=${TOKEN}`,
        `curl ${exactly}-T ${shell(request.file.replace(/^[-.]$/, './$&'))} -H "Authorization: Bearer $KEY" \\`,
        ...(options ? [`     -H ${shell(`X-Inference-Options: ${options}`)} \\`] : []),
        `     ${shell(server.address + pathOf(request))}`,
    ].join('\n');
}

function writeClient(request) {
    if (request.explains) {
        return '# vision_client predicts. For an explanation, take the tab Python.';
    }
    const version = request.version ? [`model_version=${text(request.version)}`] : [];
    const options = Object.entries(request.options).map(([name, value]) => `${name}=${literal(value)}`);
    const given = [text(request.model), text(request.file), ...version, ...options].join(', ');
    const key = server.needs_key ? 'os.environ["KEY"]' : '"key_file.json"';
    return [
        ...(server.needs_key ? ['import os', ''] : []),
        'from vision_client import Client',
        '',
        `with Client(${text(server.address)}, token=${key}) as client:`,
        `    print(client.predict(${given}))`,
    ].join('\n');
}

function writePython(request) {
    const options = writeOptions(request.options);
    const read = server.needs_key ? 'os.environ["KEY"]' : 'json.load(open("key_file.json"))["inference"]["key"]';
    return [
        server.needs_key ? 'import os' : 'import json',
        '',
        'import requests',
        '',
        `headers = {"Authorization": "Bearer " + ${read}, "Content-Type": "application/octet-stream"}`,
        ...(options ? [`headers["X-Inference-Options"] = ${text(options)}.encode()`] : []),
        `with open(${text(request.file)}, "rb") as picture:`,
        `    answer = requests.post(${text(server.address + pathOf(request))}, data=picture, headers=headers, timeout=60)`,
        'print(answer.status_code, answer.json())',
    ].join('\n');
}

function writeJavaScript(request) {
    const options = writeOptions(request.options);
    return [
        '// Node.js; a browser takes the file of an <input> instead, and never a key that others must not have',
        'import {readFile} from "node:fs/promises";',
        '',
        'const headers = {Authorization: `Bearer ${process.env.KEY}`, "Content-Type": "application/octet-stream"};',
        ...(options ? [`headers["X-Inference-Options"] = Buffer.from(${text(options)}).toString("latin1");`] : []),
        `const answer = await fetch(${text(server.address + pathOf(request))},`,
        `    {method: "POST", headers, body: await readFile(${text(request.file)})});`,
        'console.log(answer.status, await answer.json());',
    ].join('\n');
}

// One word of bash and zsh. What a terminal would obey, or show in another order than it is, is written as its number.
function shell(value) {
    if (/^[\w./:-]+$/.test(value)) {
        return value;
    }
    if (UNSEEN.test(value)) {
        return `$'${value.replace(/['\\]/g, '\\$&').replace(UNSEEN_ALL, escape)}'`;
    }
    return `'${value.replace(/'/g, "'\\''")}'`;
}

// A string of Python and of JavaScript.
function text(value) {
    return JSON.stringify(value).replace(UNSEEN_ALL, escape);
}

function escape(character) {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

function literal(value) {
    if (value === 'true' || value === 'false') {
        return value === 'true' ? 'True' : 'False';
    }
    return /^-?(0|[1-9]\d*)(\.\d+)?$/.test(value) ? value : text(value);
}
