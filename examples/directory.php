<?php
/* A sample API, in PHP without any library: all that an API has to do for Postgate.
 *
 * docs/api/openapi.yaml describes every request and answer, directory.json has the data. To try it:
 *
 *     php -S 127.0.0.1:8080 examples/directory.php
 *     curl -H 'X-Auth-Token: demo' 'http://127.0.0.1:8080/aliases?key=sales@example.org'
 *
 * php -S answers one request at a time; behind a web server the page is the same. */

declare(strict_types=1);

$directory = json_decode(file_get_contents(__DIR__ . '/directory.json'), true);

/* A lookup: a string or a list of strings, or 404. */
function look_up(?array $entries, ?string $key): array
{
    if ($entries === null || $key === null || $key === '') {
        return [400, ['error' => 'no such table, or no key']];
    }
    foreach (spellings($key) as $spelling) {
        if (isset($entries[$spelling])) {
            return [200, $entries[$spelling]];
        }
    }
    return [404, ['error' => 'no such entry']];
}

/* The keys to search for, the best first. Postfix sends only the address as it is in the mail, so the
 * API handles capitals, user+extension and whole domains itself. (For capitals beyond ASCII there is
 * mb_strtolower, in an extension.) */
function spellings(string $key): array
{
    $key = strtolower($key);
    $at = strrpos($key, '@');
    if ($at === false) {
        return [$key];
    }
    $domain = substr($key, $at);
    return [$key, explode('+', substr($key, 0, $at))[0] . $domain, $domain];
}

/* How much an account may send: the numbers that the rates of a limit point to. 0 and null are "no
 * limit". */
function quota(?array $quota): array
{
    return $quota === null ? [404, ['error' => 'no such account']] : [200, $quota];
}

/* The action for Postfix. DUNNO lets its other rules decide; OK would skip them. A bounce has an
 * empty sender. */
function decide(array $policy, array $mail): array
{
    $is_listed = fn(string $attribute, string $list): bool =>
        in_array(strtolower($mail[$attribute] ?? ''), $policy[$list], true);
    return [200, ['action' => match (true) {
        $is_listed('recipient', 'open_recipients') => 'DUNNO',
        $is_listed('sender', 'blocked_senders') => 'REJECT 5.7.1 Mail from this sender is not accepted',
        $is_listed('client_address', 'greylisted_clients') =>
            'DEFER_IF_PERMIT 4.7.1 Greylisted, please try again later',
        default => 'DUNNO',
    }]];
}

/* A key of one of Dovecot's dicts: any JSON, or 404. */
function look_up_in_dict(?array $entries, array $query): array
{
    $key = dict_key($query);
    return isset($entries[$key]) ? [200, $entries[$key]] : [404, ['error' => 'no such key']];
}

/* The keys below a path: an object of names and values. Names begin behind the path and a slash. */
function list_dict(?array $entries, array $query): array
{
    $path = rtrim(dict_key($query), '/') . '/';
    $found = [];
    foreach ($entries ?? [] as $key => $value) {
        if (str_starts_with($key, $path)) {
            $found[substr($key, strlen($path))] = $value;
        }
    }
    return $found ? [200, (object) $found] : [404, ['error' => 'no such path']];
}

/* Keys of "priv" belong to a user, those of "shared" to all. */
function dict_key(array $query): string
{
    ['scope' => $scope, 'key' => $key, 'user' => $user] = $query;
    return $scope === 'priv' ? "priv/$user/$key" : "$scope/$key";
}

/* Whether a login is good, and whose it is. A real API has digests, and compares in the same time
 * whether there is such a user or not. A refusal costs the user the stored password, so that a body
 * that is no login is 400. */
function log_in(array $passwords, string $body): array
{
    $login = json_decode($body, true);
    if (!is_string($login['username'] ?? null) || !is_string($login['password'] ?? null)) {
        return [400, ['error' => 'no JSON object with a username and a password']];
    }
    $user = strtolower($login['username']);
    $is_right = hash_equals($passwords[$user] ?? '', $login['password']);
    return [200, isset($passwords[$user]) && $is_right
        ? ['accepted' => true, 'user' => $user] : ['accepted' => false]];
}

function answer(array $directory): array
{
    if (!hash_equals($directory['token'], $_SERVER['HTTP_X_AUTH_TOKEN'] ?? '')) {
        return [401, ['error' => 'X-Auth-Token is missing or wrong']];
    }
    /* Split before it is decoded: a key may hold a slash. */
    $path = explode('?', $_SERVER['REQUEST_URI'])[0];
    $parts = array_map('rawurldecode', explode('/', substr($path, 1)));
    [$first, $second] = $parts + [1 => null];
    $table = $directory['tables'][$first] ?? null;
    return match ([$_SERVER['REQUEST_METHOD'], $first, count($parts)]) {
        ['POST', 'policy', 1] => decide($directory['policy'], $_POST),
        ['POST', 'login', 1] => log_in($directory['passwords'], file_get_contents('php://input')),
        ['GET', 'dict', 1] => look_up_in_dict($directory['dicts'][$_GET['name']] ?? null, $_GET),
        ['GET', 'dict', 2] => list_dict($directory['dicts'][$_GET['name']] ?? null, $_GET),
        ['GET', 'quota', 2] => quota($directory['quotas'][$second] ?? null),
        ['GET', $first, 1] => look_up($table, $_GET['key'] ?? null),
        ['GET', $first, 2] => look_up($table, $second),
        default => no_such_route(),
    };
}

/* Not 404, which means "no such entry": a mistyped URL would bounce mail. */
function no_such_route(): array
{
    return [400, ['error' => 'no such route']];
}

[$status, $value] = answer($directory);
http_response_code($status);
/* For require-header: an answer without it comes from somebody else, such as a proxy. */
header('X-Directory: 1');
header('Content-Type: application/json');
echo json_encode($value);
