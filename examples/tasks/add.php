<?php
// Adds tasks from PHP: `php add.php QUEUE`. glassq-tasks listens at GLASSQ_TASKS, by default /run/glassq/tasks.sock.

/** The JSON of the answer. Throws where that is no 200; after a 503 it is worth another try. */
function tasks(string $method, string $path, ?array $message = null): array
{
    $handle = curl_init("http://localhost$path");
    curl_setopt_array($handle, [
        CURLOPT_UNIX_SOCKET_PATH => getenv('GLASSQ_TASKS') ?: '/run/glassq/tasks.sock',
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_POSTFIELDS => $message === null ? '' : json_encode($message, JSON_THROW_ON_ERROR),
        CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
        CURLOPT_RETURNTRANSFER => true,
    ]);
    $text = curl_exec($handle);
    if ($text === false) {
        throw new RuntimeException(curl_error($handle));
    }
    $status = curl_getinfo($handle, CURLINFO_RESPONSE_CODE);
    $document = json_decode($text, true, 32, JSON_THROW_ON_ERROR);
    if ($status !== 200) {
        throw new RuntimeException($document['error']['message'] ?? $text, $status);
    }
    return $document;
}

$queue = $argv[1];
$made = tasks('POST', "/tasks/$queue", ['path' => '/mail/send', 'json' => ['to' => 'cat']]);
echo "added {$made['name']}\n";

// once only, however often this runs: the name is taken for 9 days after its task
try {
    tasks('POST', "/tasks/$queue", ['path' => '/mail/invoice', 'name' => 'invoice-7', 'delay' => 60]);
} catch (RuntimeException $error) {
    if ($error->getCode() !== 409) {
        throw $error;
    }
}
