// What nginx.conf cannot say in its own words, in njs: https://nginx.org/en/docs/njs/. One function a directive of nginx.conf, the
// rest below them.

import crypto from 'crypto';
import fs from 'fs';

// js_set: the digest under which clients.map knows the key of this request.
function key_digest(r) {
    const bearer = /^Bearer +(\S+)$/i.exec(r.headersIn['Authorization'] || '');
    const key = bearer ? bearer[1] : r.headersIn['X-Api-Key'];
    return key ? crypto.createHash('sha256').update(key).digest('hex') : '';
}

// js_content: a prediction or explanation; runs when the whole body is here.
async function predict(r) {
    const explains = r.variables.asked_path.startsWith('/explanations/');
    let again;
    try {
        const type = r.headersIn['Content-Type'] || '';
        refuse_urlencoded(type);
        again = /multipart/i.test(type) ? has_file(r, type) : PICTURES.test(type);
        r.variables.body_type = type;
        r.variables.options = query_options(r);
        refuse_long_headers(r);
        r.variables.arrived = (Date.now() / 1000 - Number(r.variables.request_time)).toFixed(3);
        r.variables.inference_authorization = await authorization(r, 'inference');
        r.variables.lane = explains ? 'explanations' : LANES.find((lane) => r.variables.request_length <= lane[1])[0];
    } catch (error) {
        send_error(r, error);
        return;
    }
    r.internalRedirect(again && !explains ? '@predict' : '@once');
}

// js_content: metadata and readiness, for clients with a key.
async function describe(r) {
    await answer(r, ROUTES);
}

// js_content: liveness and readiness, for everybody.
async function probe(r) {
    await answer(r, PROBES);
}

export default {key_digest, predict, describe, probe};

const ROUTES = [
    [/^\/v2$/, describe_server],
    [/^\/v2\/models\/([\w.-]+)(?:\/versions\/([\w.-]+))?$/, describe_model],
    [/^\/v2\/models\/([\w.-]+)(?:\/versions\/([\w.-]+))?\/ready$/, model_readiness],
    [/^\/v1\/models$/, list_models],
    [/^\/v1\/models\/([\w.-]+)$/, model_readiness],
    [/^\/playground\/models$/, list_versions],
    [/^\/playground\/models\/([\w.-]+)(?:\/([\w.-]+))?$/, show_card],
];
const PROBES = [
    [/^\/v2\/health\/live$/, liveness],
    [/^\/v2\/health\/ready$/, readiness],
    [/^\/ping$/, ping],
];

// The tensors that our handlers take and give: docs/use/protocols.md.
const INPUTS = [{name: 'image', datatype: 'BYTES', shape: [-1]}];
const CLASSES = [
    {name: 'predictions', datatype: 'BYTES', shape: [-1]},
    {name: 'class_ids', datatype: 'INT64', shape: [-1, -1]},
    {name: 'scores', datatype: 'FP32', shape: [-1, -1]},
    {name: 'labels', datatype: 'BYTES', shape: [-1, -1]},
];
const OUTPUTS = {
    classification: CLASSES,
    detection: CLASSES.concat([
        {name: 'num_detections', datatype: 'INT64', shape: [-1]},
        {name: 'boxes', datatype: 'FP32', shape: [-1, -1, 4]},
    ]),
    embedding: [{name: 'embedding', datatype: 'FP32', shape: [-1, -1]}],
};

// --- Predictions

const LANES = [['small', 1 << 20], ['medium', 8 << 20], ['large', Infinity]]; // by bytes: mar_tools/serving/memory_bounds.py
const PICTURES = /^(image\/|application\/(octet-stream|json)\b|$)/i; // what may be asked twice, beside forms with a file
// The header of a part that is a file.
const FILE = /^(content-disposition:[^\r\n]*; *filename\*?=|content-type: *(image\/|application\/octet-stream))/im;
const ENCODING = '(?:utf-8|us-ascii|iso-8859-1)'; // others have other bytes for a line of a part's header
const FORM = new RegExp(`^multipart/form-data(?: *; *charset=${ENCODING})? *; *boundary=("?)([\\w'()+,./:=?-]{1,70})\\1`
    + `(?: *; *charset=${ENCODING})?$`, 'i');
const PASSED = ['Content-Type', 'Content-Encoding', 'Accept', 'Inference-Header-Content-Length', 'X-Inference-Options'];
const MOST_HEADERS = 6656; // bytes; the front's own take up to 1.1 KB
const MOST_PATH = 4000;
const WINDOW = 1 << 18;
const PART_HEADER = 8192; // bytes
const VALUE = '(?:[^\\s"\\\\;,]+|"(?:[^"\\\\]|\\\\.)*")';
const CODED = `(?:utf-8|iso-8859-1)'[\\w-]*'(?:[\\w.!#$&+^\`|~-]|%[0-9a-f]{2})*`;
// What TorchServe's HTTP library reads of a part's header, and the values that it takes; other lines it ignores.
const PART_VALUES = {
    'content-disposition': new RegExp(`^form-data(?: *; *(?:(?:name|filename|size)=${VALUE}|(?:name|filename)\\*=${CODED})){1,8}$`, 'i'),
    'content-type': new RegExp(`^[\\w!#$&^.+-]+/[\\w!#$&^.+-]+(?: *; *(?:charset=${ENCODING}|(?!charset)[\\w.*-]+=${VALUE})){0,8}$`, 'i'),
    'content-transfer-encoding': /^(?:7bit|8bit|binary)$/i,
    'content-length': /^\d{1,15}$/,
};
const PARAMETERS = new RegExp(`; *[\\w*]+=${VALUE}`, 'g');

// TorchServe would parse the image as a form, and fail with a 500.
function refuse_urlencoded(type) {
    if (type.toLowerCase().includes('application/x-www-form-urlencoded')) {
        throw refusal(415, 'UnsupportedMediaTypeError', 'the body came as application/x-www-form-urlencoded, which is what '
            + "curl's -d and --data-binary send; send the image with -T FILE, or with -H 'Content-Type: image/jpeg'");
    }
}

// TorchServe's HTTP library closes the connection on more than 8 KB of headers, or a path of more than 4 KB.
function refuse_long_headers(r) {
    const passed = PASSED.map((name) => r.headersIn[name] || '').join('') + r.variables.options;
    if (Buffer.byteLength(passed) > MOST_HEADERS) {
        throw refusal(431, 'HeadersTooLargeError', `${PASSED.join(', ')} and the query are longer than ${MOST_HEADERS} bytes together`);
    }
    refuse_long_path(r.variables.asked_path);
}

function refuse_long_path(path) {
    if (path.length > MOST_PATH) {
        throw refusal(414, 'UriTooLongError', `the path is longer than ${MOST_PATH} bytes`);
    }
}

// Whether a form has a file among its parts. TorchServe takes memory for each part, so there are bounds on their number and headers.
function has_file(r, type) {
    const form = FORM.exec(type);
    if (!form) {
        throw refusal(415, 'UnsupportedMediaTypeError', 'expected Content-Type: multipart/form-data; boundary=WORD, and no charset '
            + 'but utf-8, us-ascii or iso-8859-1');
    }
    if (!r.variables.request_body_file) {
        return false;
    }
    const file = fs.openSync(r.variables.request_body_file);
    try {
        const mark = `--${form[2]}`;
        const ends = find_delimiters(file, mark, Number(r.variables.form_parts));
        if (!(ends[0] <= mark.length + 2) && fs.statSync(r.variables.request_body_file).size) { // a line break may stand before it
            throw refusal(400, 'FormError', 'the form does not begin with the boundary that Content-Type names');
        }
        const headers = ends.map((end) => part_header(file, mark, end));
        headers.forEach(check_part);
        return headers.some((header) => FILE.test(header));
    } finally {
        fs.closeSync(file);
    }
}

// Return where each delimiter ends. Refuse a form of more than `most` parts.
function find_delimiters(file, mark, most) {
    const window = Buffer.alloc(WINDOW);
    const ends = [];
    for (let start = 0, bytes; (bytes = fs.readSync(file, window, 0, WINDOW, start)) >= mark.length; start += bytes - mark.length + 1) {
        for (let at = window.indexOf(mark); at >= 0 && at + mark.length <= bytes; at = window.indexOf(mark, at + 1)) {
            ends.push(start + at + mark.length);
            if (ends.length > most + 1) { // the last one ends the form
                throw refusal(413, 'TooManyPartsError', `the form has more than ${most} parts; send fewer images a request`);
            }
        }
    }
    return ends;
}

// Return the header behind a delimiter, or '' where the form ends. Refuse a delimiter that begins no line.
function part_header(file, mark, end) {
    const start = Math.max(end - mark.length - 2, 0);
    const bytes = Buffer.alloc(PART_HEADER);
    const read = fs.readSync(file, bytes, 0, PART_HEADER, start);
    const text = bytes.slice(end - start, read);
    if (end > mark.length && bytes.slice(0, 2).toString() !== '\r\n') {
        throw refusal(400, 'FormError', 'the boundary stands within a part of the form; choose a longer one');
    }
    if (text.slice(0, 2).toString() === '--') {
        return '';
    }
    const header = text.slice(0, Math.max(text.indexOf('\r\n\r\n'), 0)).toString();
    if (!header.startsWith('\r\n')) {
        throw refusal(400, 'FormError', `a part of the form has no header, or one that does not end within ${PART_HEADER} bytes`);
    }
    return header;
}

// Refuse a header but of lines that TorchServe's HTTP library reads alike: it skips what it does not expect, and reads on.
function check_part(header, at) {
    let names = [];
    header.split('\r\n').slice(1).forEach((line) => {
        const found = /^([\w-]+): *(.*)$/.exec(line);
        if (!found || /[\x00-\x1f\x7f]/.test(line) || /[\u0080-\u009f\ufffd]/.test(line)) {
            throw refusal(400, 'FormError', `part ${at + 1} of the form: expected header lines 'Name: value' in UTF-8, without control `
                + 'characters');
        }
        const name = found[1].toLowerCase();
        if (name === 'content-type' && /^multipart\//i.test(found[2])) {
            throw refusal(400, 'FormError', 'a part of the form is a form itself (multipart/mixed); send every file as a part of its own');
        }
        if (PART_VALUES[name] && !PART_VALUES[name].test(found[2])) {
            throw refusal(400, 'FormError', `part ${at + 1} of the form: its ${found[1]} has a value or parameter that is not known`);
        }
        if (name === 'content-disposition') {
            names = names.concat(found[2].match(PARAMETERS).filter((parameter) => /^; *name=/i.test(parameter)));
        }
    });
    if (header && (!names.length || names.some((name) => !/=.*[^\s"\\:,;=]/.test(name)))) {
        throw refusal(400, 'FormError', `part ${at + 1} of the form has no name; expected Content-Disposition: form-data; name="image"`);
    }
}

// The query as X-Inference-Options has it, to stand behind what the client's own header says: of one name the last one counts.
function query_options(r) {
    const options = (r.variables.args || '').split('&').filter((part) => part).map(to_option);
    return options.length && r.headersIn['X-Inference-Options'] ? '; ' + options.join('; ') : options.join('; ');
}

// `class_filter=traffic%20light` -> `class_filter=traffic light`. What could end the option or the header is refused.
function to_option(part) {
    const equals = part.indexOf('=');
    const name = decode(equals < 0 ? part : part.slice(0, equals));
    const value = equals < 0 ? '' : decode(part.slice(equals + 1));
    if (!name || /[^\w.-]/.test(name)) { // `$` would let a line feed through
        throw refusal(400, 'QueryError', 'the query holds a name that is none of an option; expected ?name=value&name=value');
    }
    if (/[\x00-\x1f\x7f;]/.test(value)) {
        throw refusal(400, 'QueryError', `the query's ${name} holds a semicolon or a control character`);
    }
    return `${name}=${value}`;
}

function decode(text) {
    try {
        return decodeURIComponent(text.replace(/\+/g, ' '));
    } catch (error) {
        throw refusal(400, 'QueryError', 'the query is not percent-encoded UTF-8');
    }
}

// --- Metadata and readiness

async function answer(r, routes) {
    try {
        const path = r.uri.slice(r.variables.path_prefix.length);
        refuse_long_path(path);
        const route = routes.find((row) => row[0].test(path));
        if (!route) {
            r.return(404);
            return;
        }
        const result = await route[1](r, route[0].exec(path));
        send(r, result.status || 200, result.body);
    } catch (error) {
        send_error(r, error);
    }
}

function describe_server() {
    return {body: {name: 'torchserve', version: '0.12.0', extensions: ['binary_tensor_data']}};
}

async function describe_model(r, found) {
    const path = found[2] ? `${found[1]}/${found[2]}` : found[1];
    const entry = (await management(r, `/models/${path}`, 'customized=true'))[0];
    const card = entry.customizedMetadata || {};
    const every = await management(r, `/models/${found[1]}/all`);
    return {body: {
        name: found[1],
        versions: every.map((version) => version.modelVersion),
        platform: `torchserve_${card.backend || 'unknown'}`,
        inputs: INPUTS,
        outputs: OUTPUTS[card.task] || [],
    }};
}

async function model_readiness(r, found) {
    const path = found[2] ? `${found[1]}/${found[2]}` : found[1];
    const entries = await management(r, `/models/${path}`);
    const ready = entries.every(is_ready);
    return {status: ready ? 200 : 503, body: {name: found[1], ready: ready}};
}

async function list_models(r) {
    return {body: {models: await model_names(r)}};
}

// What the playground offers: each model, its versions and the default one.
async function list_versions(r) {
    const names = await model_names(r);
    const models = [];
    for (let i = 0; i < names.length; i++) {
        const every = await management(r, `/models/${names[i]}/all`);
        const chosen = await management(r, `/models/${names[i]}`); // an await within an object's braces would end the worker
        models.push({
            name: names[i],
            default: chosen[0].modelVersion,
            versions: every.map((version) => version.modelVersion).sort(),
        });
    }
    return {body: {models: models}};
}

// The model card without what is long and tells of the server's machine.
async function show_card(r, found) {
    const path = found[2] ? `${found[1]}/${found[2]}` : found[1];
    const entries = await management(r, `/models/${path}`, 'customized=true');
    const card = entries[0].customizedMetadata;
    if (!card) {
        throw refusal(404, 'NoModelCardError', `the model ${found[1]} gives no card; was its archive built by build_model.py?`);
    }
    delete card.files;
    delete card.versions;
    return {body: card};
}

async function liveness(r) {
    const live = await is_alive(r);
    return {status: live ? 200 : 503, body: {live: live}};
}

async function ping(r) {
    const live = await is_alive(r);
    return {status: live ? 200 : 503, body: {status: live ? 'Healthy' : 'Unhealthy'}};
}

// Whether every worker of every version of every model is ready, and there is one.
async function readiness(r) {
    let ready = false;
    try {
        const names = await model_names(r);
        ready = names.length > 0;
        for (let i = 0; ready && i < names.length; i++) {
            ready = (await management(r, `/models/${names[i]}/all`)).every(is_ready);
        }
    } catch (error) {
        if (!error.code) {
            throw error;
        }
        ready = false; // the management API does not answer, or not with what it should
    }
    return {status: ready ? 200 : 503, body: {ready: ready}};
}

function is_ready(entry) {
    const ready = entry.workers.filter((worker) => worker.status === 'READY').length;
    return ready > 0 && ready === Math.max(entry.workers.length, entry.minWorkers);
}

async function is_alive(r) {
    try {
        r.variables.inference_authorization = await authorization(r, 'inference');
    } catch (error) {
        return false;
    }
    return (await r.subrequest('/torchserve/ping')).status === 200;
}

async function model_names(r) {
    return (await management(r, '/models', 'limit=1000')).models.map((model) => model.modelName);
}

// What the management API answers to a GET.
async function management(r, path, args) {
    r.variables.management_authorization = await authorization(r, 'management');
    const reply = await r.subrequest(`/management${path}`, {args: args || ''});
    if (reply.status === 404) {
        throw refusal(404, 'ModelNotFoundError', 'no such model or version is served here');
    }
    if (reply.status !== 200) {
        throw refusal(503, 'UnavailableError', `the model server's management answered ${reply.status}`);
    }
    return JSON.parse(reply.responseText);
}

// --- Tokens and errors

// The header Authorization with TorchServe's own token, which is renewed when it has ended; empty where it wants none.
async function authorization(r, kind) {
    if (!r.variables.key_file) {
        return '';
    }
    let keys = await read_keys(r, kind);
    if (has_ended(keys[kind])) {
        await renew(r, kind, keys);
        keys = await read_keys(r, kind);
    }
    if (has_ended(keys[kind])) {
        throw refusal(503, 'TokenExpiredError', `the front's ${kind} token for the model server has expired, and its management API `
            + `renews none; whoever runs it looks there, or renews it with scripts/manage_models.py token ${kind} --renew`);
    }
    return `Bearer ${keys[kind].key}`;
}

// Of the key file, with the token of this kind. While TorchServe renews one, the file is half written for an instant.
async function read_keys(r, kind) {
    for (let tries = 0; tries < 100; tries++) {
        try {
            const keys = JSON.parse(fs.readFileSync(r.variables.key_file));
            if (keys[kind]) {
                return keys;
            }
        } catch (error) {
            // no file, or half of one: on a busy machine the writer may need a second
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw refusal(503, 'UnavailableError', 'the model server is not running');
}

function has_ended(entry) {
    return Date.parse(entry['expiration time'].replace(/(\.\d{3})\d+Z$/, '$1Z')) <= Date.now(); // it has nanoseconds
}

// TorchServe writes the new token to the key file. A renewal ends the one before, so that of many requests at a time one alone may
// ask: the lock of the cache in nginx.conf sees to it.
async function renew(r, kind, keys) {
    if (keys.API) {
        r.variables.management_authorization = `Bearer ${keys.API.key}`;
        await r.subrequest('/management/token', {args: `type=${kind}`});
    }
}

function refusal(code, type, message) {
    return {code: code, type: type, message: message};
}

function send_error(r, error) {
    if (!error.code) {
        r.error(`${error.name}: ${error.message}`);
        r.return(500);
        return;
    }
    const body = {code: error.code, type: error.type, message: error.message};
    if (/^\/v[12](\/|$)/.test(r.variables.request_uri.slice(r.variables.path_prefix.length))) {
        body.error = error.message; // where clients of V1 and V2 look
    }
    send(r, error.code, body);
}

function send(r, status, body) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify(body) + '\n');
}
