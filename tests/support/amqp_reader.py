"""Reads an AMQP queue with pika: each message as a line, its routing key and its body, and then acknowledged.

The arguments are the host, the port, the user (whose password is the same) and the queue. It comes back where the broker goes
away, and runs until it is killed.
"""

import sys
import time

import pika

host, port, user, queue = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def got(channel, method, _properties, body):
    print(method.routing_key, body.decode(), flush=True)
    channel.basic_ack(method.delivery_tag)


while True:
    try:
        parameters = pika.ConnectionParameters(host, port, "/", pika.PlainCredentials(user, user))
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.basic_consume(queue, got)
        channel.start_consuming()
    except (pika.exceptions.AMQPError, OSError):
        time.sleep(0.2)
