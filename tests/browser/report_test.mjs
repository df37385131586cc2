// The report page in real headless Chromium: it loads without a console error or a request, draws 1 and
// 100,000 records, filters, folds, prints, follows dark and light, and hostile names stay text.
// usage: report_test.mjs CHROMIUM PAGE_TEMPLATE [SCREENSHOT_DIR]
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Browser } from './cdp.mjs';

const [chromium, templateFile, shots] = process.argv.slice(2);
const template = readFileSync(templateFile, 'utf8');
const dir = mkdtempSync(join(tmpdir(), 'kbsup-report-'));
const HOSTILE = '/w/</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\u2028"\'&lt;';

const EVENTS = 'none start exec exit open connect bind listen send unlink rmdir rename link symlink mkdir mknod chmod chown truncate xattr mount setns ptrace signal memory syscall resolve request limit loss throttle attach end'.split(' ');

// A session of n records in a tree of processes, seen as the report writer describes it in DATA.md.
function model(n) {
	const strings = [], index = new Map();
	const s = text => { if (!index.has(text)) { index.set(text, strings.length); strings.push(text); } return index.get(text); };
	const procs = [[100, -1, 0, null, 0, 0, s('/usr/bin/make'), s('make -j2'), 0, 0, 0, 0]], records = [];
	for (let i = 0; i < n; i++) {
		const k = i % 50;
		if (k === 0 && i) procs.push([100 + procs.length, Math.floor((procs.length - 1) / 3), i, i + 40, procs.length % 9 ? 0 : 2, 0, s('/usr/bin/gcc'), s('gcc -c file' + procs.length + '.c'), 3, 1, 0, 0]);
		const p = procs.length - 1, denied = k === 49;
		const event = denied ? 4 : k === 0 ? 2 : k === 7 ? 9 : k === 11 ? 5 : 4;
		const what = i === 3 ? HOSTILE : denied ? '/home/u/.ssh/id_ed25519' : event === 5 ? '127.0.0.1:8080' : '/w/src/file' + (i % 997) + '.c';
		records.push([i + 1, i * 1.5, event, p, denied ? 1 : 0, denied ? 2 : 0, denied ? s('EACCES') : -1, denied ? 0 : -1, s(what), -1, k === 5 ? 1 : 0, denied ? s('fs read "~/.ssh/id_ed25519"') : -1]);
	}
	const denials = records.filter(r => r[4]).length;
	return { version: 'test', made_ms: 1.7e12, cut: false, events: EVENTS, strings, procs, records,
		session: { id: '01JTEST', name: 'brave-otter', agent: 'shell', machine: 'local', user: 'u', policy: 'shell', workspace: '/w', command: 'make -j2', reason: '', started_ms: 1.7e12, ended_ms: 1.7e12 + n * 1.5 + 1, exit_code: 0, signal: 0, verify: 'intact' },
		totals: { records: n, denials, lost: 0, commands: procs.length, changed: 2, deleted: 1, hosts: 1 },
		rules: [{ id: 'base.policy:14#5f3a9c01', file: 'base.policy', line: 14, text: 'fs deny "~/.ssh"', reason: 'credentials stay on the host' }],
		files: [[s(HOSTILE), 'created', 2, 0, -1], [s('/w/a.o'), 'modified', 1, 0, -1], [s('/w/b.o'), 'renamed', 1, 0, s('/w/c.o')]], net: [[s('127.0.0.1:8080'), 0, 3, 0]] };
}
function page(n) {
	const file = join(dir, n + '.html');
	writeFileSync(file, template.split('@KBSUP_DATA@').join(JSON.stringify(model(n)).replace(/</g, '\\u003c')));
	return pathToFileURL(file).href;
}

let failed = 0, count = 0;
function check(ok, what) {
	count++;
	if (!ok) failed++;
	console.log((ok ? 'ok ' : 'not ok ') + count + ' - ' + what);
}

const trouble = [], requests = [];
const b = await Browser.launch(chromium);
b.listeners.push((method, p) => {
	if (method === 'Runtime.exceptionThrown') trouble.push(p.exceptionDetails.exception?.description ?? p.exceptionDetails.text);
	if (method === 'Runtime.consoleAPICalled') trouble.push('console.' + p.type);
	if (method === 'Log.entryAdded') trouble.push(p.entry.text);
	if (method === 'Network.requestWillBeSent' && !p.request.url.startsWith('data:')) requests.push(p.request.url);
});
const shot = (name, whole) => shots ? b.screenshot(join(shots, name + '.png'), whole) : null;
const visible = 'document.querySelectorAll("#rows .row").length', counted = 'document.getElementById("count").textContent';
const set = (id, value) => b.eval(`{const e=document.getElementById(${JSON.stringify(id)});e.value=${JSON.stringify(value)};e.dispatchEvent(new Event(e.tagName==="INPUT"?"input":"change"));new Promise(r=>setTimeout(r,250))}`);
try {
	for (const n of [1, 1000, 100000]) {
		await b.size(1280, 900);
		await b.open(page(n));
		check(await b.eval('document.title') === 'kbsup report: brave-otter', n + ' records: loads');
		check((await b.eval(counted)).startsWith(n.toLocaleString('en') + ' record'), n + ' records: all counted');
		check(await b.eval(visible) <= 60, n + ' records: only the rows in view are drawn');
		check(await b.eval('document.querySelectorAll("svg.time rect[fill]").length') > 0, n + ' records: the timeline is drawn');
		await shot('light-' + n, true);
	}
	await b.eval('document.getElementById("scroll").scrollTop=1e9,new Promise(r=>setTimeout(r,150))');
	check(await b.eval('[...document.querySelectorAll("#rows .row")].at(-1).firstChild.textContent') === '100000', 'scrolls to the last of 100,000');
	await b.open(page(1000));
	await set('f-decision', '1');
	check(await b.eval(counted) === '20 of 1,000 records', 'filter by decision');
	await set('q', 'ID_ED25519');
	check(await b.eval(counted) === '20 of 1,000 records', 'search ignores case, filters add up');
	await set('q', 'no such thing');
	check(await b.eval(counted) === '0 of 1,000 records', 'a search without hits shows none');
	await b.eval('document.getElementById("clear").click()');
	check(await b.eval(counted) === '1,000 records', 'clear brings everything back');
	await set('f-event', '9');
	check(await b.eval(counted) === '20 of 1,000 records', 'filter by event');
	await b.eval('document.querySelector("#rows .row").click()');
	check((await b.eval('document.getElementById("detail").textContent')).includes('brave-otter:'), 'a record opens');
	check(await b.eval('document.querySelectorAll("#denied .denial").length') === 1 && (await b.eval('document.getElementById("denied").textContent')).includes('fs deny "~/.ssh"'), 'equal denials are one entry with the rule text');
	check((await b.eval('document.getElementById("denied").textContent')).includes('to allow it: fs read'), 'a denial says what would allow it');
	await b.eval('document.getElementById("fold").click()');
	check(await b.eval('document.querySelectorAll("#tree details[open]").length') === 0, 'the tree folds');
	await b.eval('document.getElementById("unfold").click()');
	check(await b.eval('document.querySelectorAll("#tree .leaf, #tree summary").length') === 20, 'the tree unfolds to every process');
	check(await b.eval('window.pwned') === undefined && await b.eval('document.querySelectorAll("img").length') === 0, 'hostile names stay text');
	check(await b.eval(`document.body.textContent.includes(${JSON.stringify(HOSTILE)})`), 'and are shown as they are');
	const bg = 'getComputedStyle(document.body).backgroundColor';
	const light = await b.eval(bg);
	await b.size(1280, 900, true);
	check(await b.eval(bg) !== light, 'follows the dark preference');
	await shot('dark-1000', true);
	await b.eval('document.getElementById("theme").click()');
	check(await b.eval(bg) === light, 'and can be switched');
	await b.size(420, 900);
	check(await b.eval('document.documentElement.scrollWidth') <= 420, 'fits a narrow screen');
	await shot('narrow-1000');
	await b.size(1280, 900, false, 'print');
	check(await b.eval('getComputedStyle(document.getElementById("all")).display') === 'none' && await b.eval('getComputedStyle(document.querySelector("p.print-only")).display') === 'block', 'prints without the record list');
	const { data } = await b.call('Page.printToPDF', { printBackground: true });
	check(Buffer.from(data, 'base64').subarray(0, 5).toString() === '%PDF-', 'prints to PDF');
	check(trouble.length === 0, 'no console message, no exception ' + trouble.slice(0, 3).join(' | '));
	check(requests.every(u => u.startsWith('file://' + dir)), 'no request but the page itself ' + requests.filter(u => !u.startsWith('file://' + dir)).join(' '));
} finally {
	await b.close();
	rmSync(dir, { recursive: true, force: true });
}
console.log('1..' + count);
process.exit(failed ? 1 : 0);
