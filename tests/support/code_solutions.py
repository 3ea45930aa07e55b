"""A right answer to each bundled task of the domain code, by the task's id."""

SOLUTIONS = {
    "add_all": """def total(numbers):
    return sum(numbers)
""",
    "largest": """def largest(numbers):
    return max(numbers)
""",
    "is_even": """def is_even(n):
    return n % 2 == 0
""",
    "reverse_text": """def backwards(text):
    return text[::-1]
""",
    "count_vowels": """def vowels(text):
    return sum(letter in 'aeiou' for letter in text.lower())
""",
    "palindrome": """def is_palindrome(text):
    return text == text[::-1]
""",
    "factorial": """def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)
""",
    "fibonacci": """def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
""",
    "unique": """def unique(items):
    return list(dict.fromkeys(items))
""",
    "word_count": """def count_words(text):
    return len(text.split())
""",
    "second_largest": """def second(numbers):
    return sorted(set(numbers))[-2]
""",
    "clamp": """def clamp(value, low, high):
    return max(low, min(value, high))
""",
    "celsius": """def to_celsius(fahrenheit):
    return (fahrenheit - 32) * 5 / 9
""",
    "is_prime": """def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))
""",
    "gcd": """def divisor(a, b):
    while b:
        a, b = b, a % b
    return a
""",
    "digit_sum": """def digit_sum(n):
    return sum(map(int, str(n)))
""",
    "flatten": """def flatten(lists):
    return [item for items in lists for item in items]
""",
    "counts": """def counts(items):
    found = {}
    for item in items:
        found[item] = found.get(item, 0) + 1
    return found
""",
    "initials": """def initials(name):
    return ''.join(word[0].upper() for word in name.split())
""",
    "squares": """def squares(n):
    return [i * i for i in range(1, n + 1)]
""",
    "mean": """def mean(numbers):
    return sum(numbers) / len(numbers)
""",
    "median": """def median(numbers):
    return sorted(numbers)[len(numbers) // 2]
""",
    "swap_case": """def swapped(text):
    return text.swapcase()
""",
    "longest_word": """def longest(text):
    return max(text.split(), key=len)
""",
    "positive": """def positive(numbers):
    return [n for n in numbers if n > 0]
""",
    "merge": """def merge(a, b):
    return sorted(a + b)
""",
    "rotate": """def rotate(items, k):
    return items[k:] + items[:k]
""",
    "pairs": """def pairs(items):
    return list(zip(items, items[1:]))
""",
    "binary": """def to_binary(n):
    return format(n, 'b')
""",
    "leap_year": """def is_leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
""",
    "anagram": """def is_anagram(a, b):
    return sorted(a) == sorted(b)
""",
    "chunks": """def chunks(items, size):
    return [items[i:i + size] for i in range(0, len(items), size)]
""",
    "common": """def common(a, b):
    return sorted(set(a) & set(b))
""",
    "running_sum": """def running(numbers):
    sums, total = [], 0
    for n in numbers:
        total += n
        sums.append(total)
    return sums
""",
    "caesar": """def shifted(text, k):
    letters = []
    for c in text:
        is_small = 'a' <= c <= 'z'
        letters.append(chr((ord(c) - 97 + k) % 26 + 97) if is_small else c)
    return ''.join(letters)
""",
    "inverted": """def inverted(table):
    return {value: key for key, value in table.items()}
""",
    "transpose": """def transposed(rows):
    return [list(column) for column in zip(*rows)]
""",
    "brackets": """def balanced(text):
    depth = 0
    for c in text:
        depth += (c == '(') - (c == ')')
        if depth < 0:
            return False
    return depth == 0
""",
    "collatz": """def steps(n):
    count = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        count += 1
    return count
""",
    "multiples": """def multiples(n, limit):
    return list(range(n, limit, n))
""",
    "title": """def titled(text):
    return ' '.join(word[0].upper() + word[1:] for word in text.split())
""",
    "minutes": """def minutes(clock):
    hours, rest = clock.split(':')
    return 60 * int(hours) + int(rest)
""",
    "power": """def power(base, exponent):
    product = 1
    for _ in range(exponent):
        product *= base
    return product
""",
    "missing": """def missing(numbers):
    n = len(numbers) + 1
    return n * (n + 1) // 2 - sum(numbers)
""",
    "dot": """def dot(a, b):
    return sum(x * y for x, y in zip(a, b))
""",
    "run_length": """def compressed(text):
    runs = []
    for c in text:
        if runs and runs[-1][0] == c:
            runs[-1] = (c, runs[-1][1] + 1)
        else:
            runs.append((c, 1))
    return runs
""",
    "without": """def without(items, item):
    return [other for other in items if other != item]
""",
    "distance": """def distance(a, b):
    return sum(x != y for x, y in zip(a, b))
""",
}
