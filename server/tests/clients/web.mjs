// What a page sees through @openfeature/web-sdk and @openfeature/ofrep-web-provider.
// node web.mjs INSTALLED URL KEY: prints {user: {flag: {value, reason, variant}}}, then waits until the flag `later` becomes true, and
// prints how many polls were answered with 200 and 304.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [installed, baseUrl, key] = process.argv.slice(2);
const require = createRequire(`${installed}/`);
const { OpenFeature, ProviderEvents } = require('@openfeature/web-sdk');
const { OFREPWebProvider } = require('@openfeature/ofrep-web-provider');

const statuses = { 200: 0, 304: 0 };
const fetchImplementation = async (...request) => {
  const response = await fetch(...request);
  statuses[response.status] = (statuses[response.status] ?? 0) + 1;
  return response;
};
const provider = new OFREPWebProvider({
  baseUrl, headers: [['Authorization', `Bearer ${key}`]], pollInterval: 50, cacheMode: 'disabled', fetchImplementation,
});
await OpenFeature.setContext({ targetingKey: 'user-0', country: 'DE' });
await OpenFeature.setProviderAndWait(provider);
const client = OpenFeature.getClient();

const found = {};
for (let number = 0; number < 20; number++) {
  const context = { targetingKey: `user-${number}`, country: number % 2 ? 'IE' : 'DE' };
  await OpenFeature.setContext(context);
  const details = {
    welcome: client.getBooleanDetails('welcome', false),
    button: client.getStringDetails('button', 'none'),
    size: client.getNumberDetails('size', -1),
    pricing: client.getObjectDetails('pricing', {}),
    irish: client.getBooleanDetails('irish', false),
    halted: client.getBooleanDetails('halted', false),
  };
  found[context.targetingKey] = Object.fromEntries(Object.entries(details).map(([flag, it]) => {
    assert.equal(it.errorCode, undefined, `${flag}: ${it.errorMessage}`);
    return [flag, { value: it.value, reason: it.reason, variant: it.variant }];
  }));
}
assert.equal(client.getStringDetails('no-such-flag', 'default').errorCode, 'FLAG_NOT_FOUND');
assert.equal(client.getStringDetails('welcome', 'default').errorCode, 'TYPE_MISMATCH');
await OpenFeature.setContext({ country: 'IE' });
assert.equal(client.getStringDetails('button', 'default').errorCode, 'TARGETING_KEY_MISSING');
assert.equal(client.getBooleanDetails('irish', false).value, true, 'one failed flag does not fail the others');

assert.equal(client.getBooleanValue('later', true), false);
const changed = new Promise((resolve) => client.addHandler(ProviderEvents.ConfigurationChanged, () => {
  if (client.getBooleanValue('later', false)) resolve();
}));
console.log(JSON.stringify(found));
await changed;
assert.ok(statuses[304] >= 1, JSON.stringify(statuses));
console.log(JSON.stringify(statuses));
await OpenFeature.close();
process.exit(0);
