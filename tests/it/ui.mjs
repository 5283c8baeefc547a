// A person on the pages of the admin listener, in Chromium: two widths, light and dark, with and without scripts.
// tests/it/ui_browser.rs runs it and reads its last line.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const { TOOLS, CHROMIUM, ADMIN, TOKEN, ATTACKER, SHOTS } = process.env;
const require = createRequire(`${TOOLS}/browser/`);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
const violations = [];

const look = async (page, name) => {
  await page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true });
  // The policy of the pages allows no script, so axe-core runs in a world of its own.
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const world = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const evaluate = expression => session.send('Runtime.evaluate', {
    contextId: world.executionContextId, expression, awaitPromise: true, returnByValue: true,
  });
  await evaluate(axe);
  const { result } = await evaluate(
    `axe.run().then(found => JSON.stringify(found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.target + ' ' + n.failureSummary).join(' | '))))`);
  if (!result.value) violations.push(`${name}: axe-core did not run`);
  else for (const violation of JSON.parse(result.value)) violations.push(`${name}: ${violation}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) violations.push(`${name}: ${wide} px wider than the screen`);
};

const visit = async (name, options, own) => {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on('pageerror', error => violations.push(`${name}: ${error}`));
  await own(page, context);
  await context.close();
};

const logIn = async page => {
  await page.goto(`${ADMIN}/ui/login`);
  await page.getByLabel('token').fill(TOKEN);
  await page.getByRole('button', { name: 'Log in' }).click();
  // A click does not wait for the next page.
  await page.getByRole('button', { name: 'Log out' }).waitFor();
};

const sizes = { phone: { width: 360, height: 740 }, desk: { width: 1280, height: 900 } };
for (const [size, viewport] of Object.entries(sizes)) {
  for (const colorScheme of ['light', 'dark']) {
    const name = `${size}-${colorScheme}`;
    await visit(name, { viewport, colorScheme }, async page => {
      await page.goto(`${ADMIN}/`);
      await look(page, `${name}-status`);
      await page.goto(`${ADMIN}/ui/login`);
      await look(page, `${name}-login`);
      await logIn(page);
      await look(page, `${name}-home`);
      await page.goto(`${ADMIN}/ui/services/shop`);
      await look(page, `${name}-service`);
      await page.goto(`${ADMIN}/ui/new/cors_policies`);
      await page.getByLabel('name').fill('bad');
      await page.getByLabel('allow_origins', { exact: true }).fill('https://app.example/');
      await page.getByRole('button', { name: 'Preview' }).click();
      await page.getByRole('alert').getByText('Nothing was changed').waitFor();
      await look(page, `${name}-problem`);
    });
  }
}

// With the keyboard only.
const press = async (page, button) => {
  await page.getByRole('button', { name: button }).focus();
  await page.keyboard.press('Enter');
};
const typeIn = async (page, label, text) => {
  await page.getByLabel(label, { exact: true }).focus();
  await page.keyboard.type(text);
};
const save = async page => {
  await press(page, 'Preview');
  await page.getByText('nothing is saved yet').waitFor();
  await press(page, 'Save');
  await page.getByText('It is active').waitFor();
};

// The policy and the service of the README's walkthrough, set by hand.
await visit('walkthrough', { viewport: sizes.desk }, async page => {
  await logIn(page);
  await page.getByRole('link', { name: 'New entry of cors_policies' }).click();
  await typeIn(page, 'name', 'walkthrough');
  await typeIn(page, 'allow_origins', 'http://127.0.0.1:9080');
  await typeIn(page, 'allow_methods', 'GET');
  await typeIn(page, 'allow_headers', '*');
  await typeIn(page, 'expose_headers', '*');
  await typeIn(page, 'max_age', '5');
  await page.getByLabel('allow_credentials', { exact: true }).selectOption('false');
  await page.screenshot({ path: `${SHOTS}/walkthrough-policy.png`, fullPage: true });
  await save(page);
  await page.goto(`${ADMIN}/ui/`);
  await page.getByRole('link', { name: 'New entry of services' }).click();
  await typeIn(page, 'name', 'httpbin');
  await typeIn(page, 'hosts', 'cloud.httpbin.org');
  await page.locator('[name=upstream]').focus();
  await page.keyboard.type('api');
  await page.locator('select[name=cors]').selectOption('named');
  await page.locator('input[name="cors.name"]').focus();
  await page.keyboard.type('walkthrough');
  await page.screenshot({ path: `${SHOTS}/walkthrough-service.png`, fullPage: true });
  await save(page);
});

// A policy with a danger, a preview, and the pages after it.
await visit('policy', { viewport: sizes.desk }, async page => {
  await logIn(page);
  await page.getByRole('link', { name: 'New entry of cors_policies' }).click();
  const type = (label, text) => typeIn(page, label, text);
  await type('name', 'pages');
  await type('allow_origins', 'http://a.example.com:9080\nhttp://b.example.com:9080');
  await type('allow_methods', 'GET\nPUT');
  await type('max_age', '600');
  await page.getByLabel('allow_credentials', { exact: true }).selectOption('true');
  await page.getByLabel('dangerously_allow', { exact: true }).fill('insecure_origins');
  await press(page, 'Preview');
  await page.getByText('nothing is saved yet').waitFor();
  await look(page, 'preview-of-policy');
  await press(page, 'Save');
  await page.getByText('It is active').waitFor();
  await look(page, 'saved');
});

// Two people with the same form: the second one is told.
await visit('conflict', { viewport: sizes.phone, colorScheme: 'dark' }, async page => {
  await logIn(page);
  await page.goto(`${ADMIN}/ui/cors_policies/pages`);
  const other = await page.context().newPage();
  await other.goto(`${ADMIN}/ui/cors_policies/pages`);
  await other.getByLabel('max_age', { exact: true }).fill('601');
  await save(other);
  await page.getByLabel('max_age', { exact: true }).fill('602');
  await page.getByRole('button', { name: 'Preview' }).click();
  await page.getByText('Somebody else has changed or deleted it').waitFor();
  await look(page, 'conflict');
});

// Without a token the pages are read-only.
await visit('read-only', { viewport: sizes.phone }, async page => {
  await page.goto(`${ADMIN}/ui/cors_policies/pages`);
  await page.getByRole('banner').getByRole('link', { name: 'Log in' }).waitFor();
  if (await page.getByRole('button').count() > 0) violations.push('read-only: there is a button');
  await look(page, 'read-only');
});

await visit('without-scripts', { viewport: sizes.phone, javaScriptEnabled: false }, async page => {
  await logIn(page);
  await page.goto(`${ADMIN}/ui/services/shop`);
  await page.locator('select[name=cors]').selectOption('named');
  await page.locator('input[name="cors.name"]').fill('pages');
  await page.locator('input[name=try-origin]').fill('http://a.example.com:9080');
  await page.locator('input[name=try-url]').fill('http://any.test/orders/1');
  await page.getByRole('button', { name: 'Preview' }).click();
  await page.getByText('The tried page').waitFor();
  await page.screenshot({ path: `${SHOTS}/preview.png`, fullPage: true });
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('It is active').waitFor();
});

// A page of another site, in the browser of a person who is logged in.
await visit('attacker', { viewport: sizes.desk }, async page => {
  await logIn(page);
  await page.goto(ATTACKER);
  await page.getByText('attacked').waitFor();
});

await browser.close();
console.log(JSON.stringify(violations));
