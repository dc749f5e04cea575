// What a front before several machines chooses, in njs: which of them to ask.

// js_content: a request that goes to a machine; runs when the whole body is here.
async function pass(r) {
    const ready = (await look_again(r)).ready;
    r.variables.group = choose(ready, Number(r.variables.machines));
    r.internalRedirect('@machine');
}

// js_content: liveness and readiness, for everybody: those of any machine.
async function probe(r) {
    const seen = await look_again(r);
    const path = r.uri.slice(r.variables.path_prefix.length);
    const ready = path === '/v2/health/ready';
    const well = (ready ? seen.ready : seen.alive).length > 0;
    const bodies = {'/ping': {status: well ? 'Healthy' : 'Unhealthy'}, '/v2/health/live': {live: well}, '/v2/health/ready': {ready: well}};
    send(r, well ? 200 : 503, bodies[path]);
}

// js_content, of the socket within: ask each machine whether it is ready. Who comes first after that second also waits for the answer
// before his next request on the same connection, so a look that took long holds for longer.
async function look(r) {
    const begun = Date.now();
    const numbers = [];
    for (let i = 1; i <= Number(r.variables.machines); i++) {
        numbers.push(i);
    }
    const replies = await Promise.all(numbers.map((number) => r.subrequest(`/machine_${number}`)));
    const ready = numbers.filter((number, at) => replies[at].status === 200);
    const alive = numbers.filter((number, at) => replies[at].status === 200 || replies[at].status === 503);
    r.headersOut['X-Accel-Expires'] = Date.now() - begun > SLOW_MS ? SECONDS_AFTER_SLOW : 1;
    send(r, 200, {ready: ready, alive: alive});
}

export default {pass, probe, look};

const SLOW_MS = 500; // as of a machine that is cut off: what has ended refuses a connection at once
const SECONDS_AFTER_SLOW = 10;

// What was seen a second ago, or since the last request.
async function look_again(r) {
    const reply = await r.subrequest('/look');
    if (reply.status !== 200) {
        r.error(`the look at the machines answered ${reply.status}`);
        return {ready: [], alive: []};
    }
    return JSON.parse(reply.responseText);
}

// The group of those that are ready. Where none is, one may be all the same: ask all.
function choose(ready, count) {
    if (!ready.length || ready.length === count) {
        return 'machines';
    }
    if (ready.length === count - 1) {
        for (let i = 1; i <= count; i++) {
            if (!ready.includes(i)) {
                return `all_but_${i}`;
            }
        }
    }
    return `machine_${ready[Math.floor(Math.random() * ready.length)]}`;
}

function send(r, status, body) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify(body) + '\n');
}
